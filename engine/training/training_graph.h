// The graphs of training: one image to losses and gradients, and all gradients to new weights.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "detector/layers.h"
#include "graph/graph.h"
#include "training/train_config.h"

namespace frcnn {

// A model's configuration in the units it is trained in (training_units.h).
struct TrainingModel {
  ModelConfig config;
  int input_pad = 0;  // pixels of border that take the place of the first layer's padding
};

struct TrainingGraphRequest {
  enum class Source : std::uint8_t {
    image,  // inputs `pixels` u8 [H,W,3] and, saying that they lie there, `images`; targets drawn in the graph
    given,  // inputs `data` f32 [1,H,W,3] and every target, for comparisons (below)
  };
  Source source = Source::image;
  std::int64_t height = 0, width = 0;  // of the image or data
  double scale = 1.0;                  // source image: network pixels per original pixel
  std::int64_t boxes = 1;              // room for ground truth
  bool accumulate = false;             // gradients are added to the states' instead of replacing them
  DType operands = DType::f32;         // of the convolutions behind the first one up to the RPN's
};

// Inputs besides: `im_info` [1,3], `gt_boxes` [1,boxes,5] in network pixels, `gt_count` i32 [1], `random_key`
// i32 [4]. The losses are kept: `rpn_cls_loss`, `rpn_loss_bbox`, `loss_cls`, `loss_bbox`, each [1], and
// `rpn_nonfinite` i32 [1]. Gradients go to the states named by gradient_name(). With Source::given there are
// no proposals; inputs take the place of what would be drawn: `rpn_labels` i32 [1,H',W',A],
// `rpn_bbox_targets`, `rpn_bbox_inside_weights` and `rpn_bbox_outside_weights` [1,H',W',4A], and for
// roi_batch rois `rois` [R,5], `labels` i32 [R], `bbox_targets`, `bbox_inside_weights` and
// `bbox_outside_weights` [R,4C], `rois_count` i32 [1].
Graph build_training_graph(const TrainingModel& model, const WeightSource& weights, const TrainConfig& config,
                           const TrainingGraphRequest& request);

// Names of a model's layers with weights, in network order.
std::vector<std::string> layer_names(const ModelConfig& model);

// A parameter and the rule that updates it.
struct Parameter {
  std::string name;  // "conv3_1.weight"
  Shape shape;
  bool is_bias = false;
};

std::string velocity_name(const std::string& parameter);  // states beside the parameter's own
std::string average_name(const std::string& parameter);

// Inputs: `rates` [2] = learning rate, decay of the average. Kept: `gradient_norms` [parameters + 1], of the
// mean gradients of `accumulated` images. Where a norm is not finite nothing changes.
Graph build_update_graph(std::span<const Parameter> parameters, const SolverConfig& solver,
                         std::int64_t accumulated);

}  // namespace frcnn
