// Every hyper-parameter of a training run. The defaults are the numbers of the published end-to-end recipe (SPEC
// sections 9 to 12); presets and configuration files change them (docs/training.md).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "graph/ops.h"

namespace frcnn {

enum class LrPolicy : std::uint8_t { step, cosine };
enum class Filler : std::uint8_t {
  gaussian,
  he
};  // gaussian: 0.01; he: sqrt(2 / fan in). New backbone and fc layers

// RPN targets (SPEC section 9).
struct AnchorTargetConfig {
  double positive_iou = 0.7, negative_iou = 0.3;
  std::int64_t batch = 256;  // anchors per image
  double positive_fraction = 0.5;
  double allowed_border = 0;  // pixels of the network input
  PositiveAnchors positives = PositiveAnchors::always;
  UntouchedBoxes untouched = UntouchedBoxes::ignore;
};

// Fast R-CNN sampling (SPEC section 10).
struct RoiTargetConfig {
  std::int64_t batch = 128;  // RoIs per image
  double foreground_fraction = 0.25, foreground_iou = 0.5;
  double background_iou_high = 0.5, background_iou_low = 0.0;
  std::array<double, 4> means{0, 0, 0, 0},
      stds{0.1, 0.1, 0.2, 0.2};  // of the box targets, undone when saving
};

// Proposals while training.
struct TrainProposalConfig {
  std::int64_t pre_nms_top_n = 12000, post_nms_top_n = 2000;
  double nms = 0.7;
};

struct LossConfig {
  LossNorm norm = LossNorm::caffe;
  double rpn_lambda = 10;                // norm paper
  double rpn_sigma = 3, head_sigma = 1;  // of the smooth L1
};

struct SolverConfig {
  double base_lr = 0.001, momentum = 0.9, weight_decay = 0.0005;
  double bias_lr_mult = 2;
  bool decay_biases = true;
  std::int64_t iter_size = 2;  // images whose gradients are averaged for one update
  double clip_norm = 0;        // of all gradients together, in training units; 0: no clipping
  double average_decay = 0;    // of the moving average of the weights; 0: none
  LrPolicy policy = LrPolicy::step;
  std::vector<std::int64_t> lr_steps{
      50000};  // policy step: updates after which the rate is multiplied by gamma
  double gamma = 0.1;
  double final_fraction = 0.02;  // policy cosine: of base_lr at the end
  std::int64_t warmup = 0;       // updates over which the rate grows linearly from base_lr / warmup
};

struct AugmentConfig {
  bool horizontal_flip = true;  // each with probability 1/2
  bool vertical_flip = false;
  bool transpose = false;
  double colour_gain = 0;       // factor in [1 - gain, 1 + gain], with probability 1/2 together with:
  double colour_shift = 0;      // levels in [-shift, shift], one for each channel
  bool aspect_grouping = true;  // images of one update are all wide or all tall
};

// A change of variables that leaves the function alone and makes plain SGD converge from scratch: the network
// is trained on (input - offset) / scale with maps up to the last LRN measured in `hidden`, and saved in
// published units.
struct UnitsConfig {
  bool measure_input_offset = false;  // the data set's mean after the pixel mean, rounded to whole levels
  std::array<double, 3> input_offset{0, 0, 0};  // BGR levels
  double input_scale = 1, hidden = 1;           // powers of two, so that folding is exact
};

struct TrainConfig {
  std::string preset = "py-faster-rcnn";
  std::int64_t iterations = 70000;  // updates
  std::uint64_t seed = 3;
  std::vector<std::string> frozen;  // layer names, e.g. conv1_1 ... conv2_2
  double dropout = 0.5;             // of fc6 and fc7; 0: none
  bool dropout_scales_in_training =
      true;  // false: ZF's scale_train: false, the factor is applied at test time
  Filler filler = Filler::gaussian;
  double rpn_filler_std = 0.01, cls_filler_std = 0.01, bbox_filler_std = 0.001;
  AnchorTargetConfig rpn;
  RoiTargetConfig roi;
  TrainProposalConfig proposals;
  LossConfig loss;
  SolverConfig solver;
  AugmentConfig augment;
  UnitsConfig units;
};

}  // namespace frcnn
