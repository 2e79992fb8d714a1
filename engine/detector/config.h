// Everything about a published model that is not a weight: topology and conventions. It travels in the model file's
// metadata (docs/model_format.md); nothing here is assumed by the engine.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "graph/ops.h"

namespace frcnn {

// One layer of the backbone, in order. Widths and kernel sizes of convolutions come from the weights.
struct BackboneLayer {
  enum class Kind : std::uint8_t { conv, lrn, max_pool };
  Kind kind = Kind::conv;
  std::string name;              // layer and top, e.g. "conv1_1", "norm1", "pool1"
  int stride = 1, pad = 0;       // conv
  bool relu = true;              // conv: followed by an in-place ReLU
  Lrn lrn;                       // lrn
  MaxPool pool;                  // max_pool
};

enum class ModelKind : std::uint8_t { detector, backbone };
enum class RoiOp : std::uint8_t { pool, align };
enum class AnchorRule : std::uint8_t { caffe, paper };

// Names of layers and tops that differ between published models.
struct LayerNames {
  std::string rpn_conv = "rpn_conv/3x3";       // layer; "rpn_conv1" in alternating ZF models
  std::string rpn_top = "rpn/output";          // its top
  std::string roi_pool = "pool5";              // top; "roi_pool_conv5" in ZF models
};

struct ModelConfig {
  ModelKind kind = ModelKind::detector;
  std::string name;                            // "VGG_ILSVRC_16_layers", "ZF", ...
  std::vector<BackboneLayer> backbone;
  LayerNames names;
  std::vector<std::string> classes;            // with the background first

  // input
  std::array<double, 3> pixel_mean{102.9801, 115.9465, 122.7717};   // B, G, R; 0..255
  int short_side = 600, long_side = 1000;

  // proposals
  double feat_stride = 16;
  AnchorRule anchor_rule = AnchorRule::caffe;
  double anchor_base_size = 16;
  std::vector<double> anchor_ratios{0.5, 1, 2};
  std::vector<double> anchor_scales{8, 16, 32};
  double rpn_min_size = 16;
  std::int64_t pre_nms_top_n = 6000, post_nms_top_n = 300;
  double rpn_nms = 0.7;
  Suppress suppress = Suppress::above;         // of both suppressions

  // head
  RoiOp roi_op = RoiOp::pool;
  int pooled_h = 7, pooled_w = 7;
  double spatial_scale = 0.0625;
  int roi_sampling_ratio = 0;                  // roi_op align
  bool roi_aligned = false;                    // roi_op align
  double dropout_test_scale = 1.0;             // of fc6 and fc7 after their ReLU; 0.5 for ZF

  // detections
  double score_threshold = 0.05, nms = 0.3;
  std::int64_t max_detections = 100;           // <= 0: no cap
  bool keep_ties = true;
};

}  // namespace frcnn
