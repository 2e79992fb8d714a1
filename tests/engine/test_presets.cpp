// The recipe of the reference trainer, number by number: its script's own where that has one, in the order of
// the script.
#include <map>
#include <nlohmann/json.hpp>

#include "catch.h"
#include "model_io/train_config_json.h"
#include "training/architecture.h"
#include "training/presets.h"

using namespace frcnn;
using Json = nlohmann::json;

TEST_CASE("presets: bccd is the reference trainer's recipe, complete") {
  const Json wanted{
      {"format_version", 1},
      {"preset", "bccd"},
      {"model",
       {{"arch", "zf-small"},
        {"conv_widths", Json::array()},
        {"rpn_width", 0},
        {"fc6_width", 0},
        {"fc7_width", 0},
        {"set", {{"anchor_scales", "3,8,12,16"}}}}},
      {"data",
       {{"use_difficult", false},
        {"use_images_without_objects", true},
        {"min_box_side", 2},  // zero-size boxes are dropped
        {"bad_boxes", "drop"},
        {"broken_images", "fatal"},
        {"unknown_classes", "error"}}},
      {"iterations", 3000},
      {"seed", 3},
      {"frozen", Json::array()},
      {"dropout", 0.5},
      {"dropout_scales_in_training", true},
      {"filler", "he"},
      {"rpn_filler_std", 0.01},
      {"cls_filler_std", 0.01},
      {"bbox_filler_std", 0.001},
      {"rpn",
       {{"positive_iou", 0.7},
        {"negative_iou", 0.3},
        {"batch", 256},
        {"positive_fraction", 0.5},  // 128
        {"allowed_border", 0},
        {"positives", "always"},
        {"untouched", "ignore"}}},  // best[None] > 0
      {"roi",
       {{"batch", 128},
        {"foreground_fraction", 0.25},  // 32
        {"foreground_iou", 0.5},
        {"background_iou_high", 0.5},
        {"background_iou_low", 0},  // BG_LO
        {"means", {0, 0, 0, 0}},
        {"stds", {0.1, 0.1, 0.2, 0.2}}}},
      {"proposals", {{"pre_nms_top_n", 12000}, {"post_nms_top_n", 2000}, {"nms", 0.7}}},
      {"loss", {{"norm", "caffe"}, {"rpn_lambda", 10}, {"rpn_sigma", 3}, {"head_sigma", 1}}},
      {"solver",
       {{"base_lr", 0.006},
        {"momentum", 0.9},
        {"weight_decay", 0.0005},
        {"bias_lr_mult", 2},
        {"decay_biases", false},
        {"iter_size", 1},
        {"clip_norm", 10},
        {"average_decay", 0.998},
        {"policy", "cosine"},
        {"lr_steps", {50000}},  // without meaning here
        {"gamma", 0.1},
        {"final_fraction", 0.02},
        {"warmup", 300}}},
      {"augment",
       {{"horizontal_flip", true},
        {"vertical_flip", true},
        {"transpose", true},
        {"colour_gain", 0.1},
        {"colour_shift", 8},
        {"aspect_grouping", false}}},
      {"units",
       {{"measure_input_offset", true}, {"input_offset", {0, 0, 0}}, {"input_scale", 16}, {"hidden", 64}}}};
  const Json have = Json::parse(run_config_to_json(preset("bccd")));
  INFO(Json::diff(wanted, have).dump());
  CHECK(have == wanted);
}

TEST_CASE("presets: bccd trains the reference trainer's network") {
  const NewDetector made =
      new_detector(preset("bccd").model, {"__background__", "RBC", "WBC", "Platelets"}, nullptr);
  std::map<std::string, Shape> shapes;
  for (const LayerShape& layer : made.layers) shapes[layer.name] = layer.weight;
  const std::map<std::string, Shape> wanted{{"conv1", {64, 3, 7, 7}},
                                            {"conv2", {128, 64, 5, 5}},
                                            {"conv3", {192, 128, 3, 3}},
                                            {"conv4", {192, 192, 3, 3}},
                                            {"conv5", {128, 192, 3, 3}},
                                            {"rpn_conv/3x3", {128, 128, 3, 3}},
                                            {"rpn_cls_score", {24, 128, 1, 1}},
                                            {"rpn_bbox_pred", {48, 128, 1, 1}},
                                            {"fc6", {384, 128 * 6 * 6}},
                                            {"fc7", {384, 384}},
                                            {"cls_score", {4, 384}},
                                            {"bbox_pred", {16, 384}}};
  CHECK(shapes == wanted);
  const ModelConfig& c = made.config;
  CHECK(c.pixel_mean == decltype(c.pixel_mean){102.9801, 115.9465, 122.7717});
  CHECK(c.short_side == 600);
  CHECK(c.long_side == 1000);
  CHECK(c.feat_stride == 16);
  CHECK(c.anchor_ratios == std::vector<double>{0.5, 1, 2});
  CHECK(c.anchor_scales == std::vector<double>{3, 8, 12, 16});
  CHECK(c.rpn_min_size == 16);
  CHECK(c.pooled_h == 6);
  CHECK(c.pooled_w == 6);
  CHECK(c.spatial_scale == 1 / 16.0);
  CHECK(c.dropout_test_scale == 0.5);  // which the weights that are saved make good
  int norms = 0;
  for (const BackboneLayer& layer : c.backbone)
    if (layer.kind == BackboneLayer::Kind::lrn) {
      ++norms;
      CHECK(layer.lrn.alpha == 5e-5f);
      CHECK(layer.lrn.beta == 0.75f);
      CHECK(layer.lrn.size == 3);
    }
  CHECK(norms == 2);
}
