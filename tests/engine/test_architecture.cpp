// Architectures and presets: shapes of published networks, overrides, and what makes no sense.
#include <map>
#include <string>

#include "catch.h"
#include "frcnn/error.h"
#include "io/scratch.h"
#include "io/small_models.h"
#include "model_io/model_file.h"
#include "training/architecture.h"
#include "training/presets.h"
#include "training/training_graph.h"

using namespace frcnn;

namespace {

const std::vector<std::string> two{"__background__", "cat", "dog"};

std::map<std::string, std::string> shapes(const NewDetector& detector) {
  std::map<std::string, std::string> all;
  for (const LayerShape& layer : detector.layers) all[layer.name] = to_string(layer.weight);
  return all;
}

std::vector<std::string> names(const NewDetector& detector) {
  std::vector<std::string> all;
  for (const LayerShape& layer : detector.layers) all.push_back(layer.name);
  return all;
}

std::string message(const ArchitectureConfig& config) {
  return scratch::error_of([&] { new_detector(config, two, nullptr); }).what();
}

}  // namespace

TEST_CASE("architecture: the published VGG-16 and ZF, and the small ZF") {
  ArchitectureConfig config;
  const NewDetector vgg = new_detector(config, two, nullptr);
  auto s = shapes(vgg);
  CHECK(vgg.layers.size() == 20);
  CHECK(names(vgg) == layer_names(vgg.config));
  CHECK(s["conv1_1"] == "64x3x3x3");
  CHECK(s["conv5_3"] == "512x512x3x3");
  CHECK(s["rpn_conv/3x3"] == "512x512x3x3");
  CHECK(s["rpn_cls_score"] == "18x512x1x1");
  CHECK(s["rpn_bbox_pred"] == "36x512x1x1");
  CHECK(s["fc6"] == "4096x25088");
  CHECK(s["bbox_pred"] == "12x4096");
  CHECK(vgg.config.feat_stride == 16);
  CHECK(vgg.config.spatial_scale == 0.0625);
  CHECK(vgg.config.dropout_test_scale == 1);

  config.arch = "zf";
  const NewDetector zf = new_detector(config, two, nullptr);
  s = shapes(zf);
  CHECK(s["conv1"] == "96x3x7x7");
  CHECK(s["conv2"] == "256x96x5x5");
  CHECK(s["rpn_conv/3x3"] == "256x256x3x3");
  CHECK(s["fc6"] == "4096x9216");
  CHECK(zf.config.dropout_test_scale == 0.5);
  CHECK(zf.config.names.roi_pool == "roi_pool_conv5");
  CHECK(zf.config.feat_stride == 16);

  const NewDetector cells = new_detector(preset("bccd").model, {"b", "RBC", "WBC", "Platelets"}, nullptr);
  s = shapes(cells);
  CHECK(s["conv1"] == "64x3x7x7");
  CHECK(s["conv4"] == "192x192x3x3");
  CHECK(s["rpn_cls_score"] == "24x128x1x1");
  CHECK(s["fc6"] == "384x4608");
  CHECK(s["bbox_pred"] == "16x384");
  std::int64_t parameters = 0;
  for (const LayerShape& layer : cells.layers) parameters += layer.weight.elements() + layer.weight[0];
  CHECK(parameters == 3071324);  // the reference trainer's count
}

TEST_CASE("architecture: widths and conventions can be set") {
  ArchitectureConfig config;
  config.conv_widths = {4, 5, 6, 7, 8};
  config.rpn_width = 9;
  config.fc6_width = 10;
  config.set = {{"anchor_scales", "4,8"}, {"short_side", "300"}, {"pooled_h", "3"}, {"pooled_w", "2"}};
  const NewDetector vgg = new_detector(config, two, nullptr);
  auto s = shapes(vgg);
  CHECK(s["conv2_2"] == "5x5x3x3");
  CHECK(s["rpn_conv/3x3"] == "9x8x3x3");
  CHECK(s["rpn_cls_score"] == "12x9x1x1");
  CHECK(s["fc6"] == "10x48");
  CHECK(s["fc7"] == "4096x10");
  CHECK(vgg.config.short_side == 300);
  config.conv_widths.assign(13, 3);
  CHECK(shapes(new_detector(config, two, nullptr))["conv3_1"] == "3x3x3x3");
  config.conv_widths = {1, 2};
  CHECK(message(config) == "model.conv_widths: 2 widths for the 13 convolutions of vgg16 in 5 groups");
  config.conv_widths = {4, 5, 6, 7, 80000};
  CHECK(message(config).find("80000 wide") != std::string::npos);
  config.conv_widths.clear();
  config.set = {{"colour", "1"}};
  CHECK(message(config).find("model.set: there is no key 'colour' to set; the keys are ") == 0);
  config.set = {{"anchor_scale", "1"}};
  CHECK(message(config).find("to set; did you mean anchor_scales?") != std::string::npos);
  config.set = {{"short_side", "-1"}};
  CHECK(message(config).find("model.set.short_side: must be") == 0);
  config.set = {{"classes", "a,b"}};
  CHECK(message(config).find("model.set.classes") == 0);
  config.set.clear();
  config.arch = "resnet";
  CHECK(message(config).find("there is no architecture resnet; there are zf, zf-small, vgg11") == 0);
  config.arch = "init";
  CHECK(message(config).find("--init MODEL") != std::string::npos);
}

TEST_CASE(
    "architecture: everything of a model to start from, and only its conventions with another architecture") {
  const scratch::Folder folder;
  const ModelConfig small = small_models::config();
  save_model(folder / "m", small, small_models::weights().tensors());
  const auto init = load_model(folder / "m");
  ArchitectureConfig config;
  config.arch = "init";
  const NewDetector same = new_detector(config, two, init.get());
  auto s = shapes(same);
  CHECK(names(same) == layer_names(same.config));
  for (const LayerShape& layer : same.layers)
    CHECK(init->weights.at(layer.name + ".weight").view.shape == layer.weight);
  CHECK(same.config.classes == two);
  CHECK(same.config.anchor_scales == small.anchor_scales);
  config.fc7_width = 21;
  CHECK(shapes(new_detector(config, two, init.get()))["fc7"] == "21x7");

  ModelConfig other = small;
  other.pixel_mean = {1, 2, 3};
  config = {};
  const NewDetector vgg = new_detector(config, two, with_config(*init, other).get());
  CHECK(vgg.config.pixel_mean == other.pixel_mean);
  CHECK(vgg.config.dropout_test_scale == 0.5);
  CHECK(vgg.layers.size() == 20);

  // An ImageNet backbone lacks everything behind its convolutions but tells how large a pooled RoI is.
  small_models::WeightSet weights;
  weights.layer("conv1", {4, 3, 7, 7})
      .layer("conv2", {5, 4, 5, 3})
      .layer("fc6", {7, 5 * 16})
      .layer("fc7", {9, 7});
  ModelConfig backbone = small;
  backbone.kind = ModelKind::backbone;
  backbone.classes.clear();
  save_model(folder / "b", backbone, weights.tensors());
  const auto imagenet = load_model(folder / "b");
  config.arch = "init";
  const NewDetector made = new_detector(config, two, imagenet.get());
  s = shapes(made);
  CHECK(made.config.kind == ModelKind::detector);
  CHECK(made.config.pooled_h == 4);
  CHECK(made.config.feat_stride == 4);
  CHECK(s["fc6"] == "7x80");
  CHECK(s["fc7"] == "9x7");
  CHECK(s[made.config.names.rpn_conv] == "5x5x3x3");
}

TEST_CASE("presets: the release's numbers, and what follows the architecture") {
  const RunConfig release = preset("py-faster-rcnn");
  CHECK(release.model.arch == "vgg16");
  CHECK(release.train.frozen == std::vector<std::string>{"conv1_1", "conv1_2", "conv2_1", "conv2_2"});
  CHECK(release.train.dropout_scales_in_training);
  CHECK(release.train.iterations == 70000);
  CHECK(release.train.solver.lr_steps == std::vector<std::int64_t>{50000});
  CHECK(release.train.solver.iter_size == 2);
  const RunConfig zf = preset("py-faster-rcnn", "zf");
  CHECK(zf.train.frozen.empty());
  CHECK_FALSE(zf.train.dropout_scales_in_training);
  CHECK(preset("py-faster-rcnn", "vgg11").train.frozen == std::vector<std::string>{"conv1_1", "conv2_1"});
  const ModelConfig small = small_models::config();
  CHECK_FALSE(preset("small-data", "init", &small).train.dropout_scales_in_training);
  CHECK(preset("small-data", "init", &small).train.frozen.empty());
  CHECK(preset("paper-voc").train.loss.norm == LossNorm::paper);
  CHECK(preset("bccd").train.filler == Filler::he);
  CHECK(preset_precision("bccd") == "auto");
  CHECK(preset_precision("small-data") == "fp32");
  for (const std::string& name : preset_names()) {
    CHECK(preset(name).train.preset == name);
    CHECK(new_detector(preset(name).model, two, nullptr).layers.size() > 10);
  }
  CHECK(std::string(scratch::error_of([] { preset("best"); }).what()) ==
        "there is no preset best; there are py-faster-rcnn, paper-voc, small-data, bccd");
  CHECK_THROWS_AS(preset("bccd", "init"), Error);
}
