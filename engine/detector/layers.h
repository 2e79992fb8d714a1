// The published layers, added to a graph: what inference and training graphs share.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "detector/config.h"
#include "graph/graph.h"

namespace frcnn {

// Where a graph's weights come from.
struct WeightSource {
  std::function<Shape(const std::string& tensor)> shape;  // throws Error(bad_model) for one that there is not
  std::string name;                                       // the model's file, for messages
  std::function<bool(const std::string& layer)> trained;  // empty: none is
};

// Adds layers to one graph, taking every width from the weights. A trained layer's weights become states, and
// poolings behind one save where their maxima were. Values carry the published tops' names. Methods throw
// Error(bad_model) naming the layer or weight that does not fit.
class Layers {
 public:
  // `operands`: of the convolutions behind the first one up to the RPN's, heads excepted.
  Layers(const ModelConfig& config, WeightSource weights, Graph& graph, DType operands = DType::f32)
      : config_(config), weights_(std::move(weights)), graph_(graph), operands_(operands) {}

  ValueId backbone(ValueId top);

  struct Rpn {
    ValueId score, deltas;
    std::vector<std::array<float, 4>> anchors;  // around cell (0,0)
  };
  Rpn rpn(ValueId features);

  struct ProposalLimits {
    std::int64_t pre_nms_top_n, post_nms_top_n;  // <= 0: all
    double nms;
  };
  // rois, their scores and how many there are. `map_sizes` (graph/ops.h) where maps have padding.
  std::vector<ValueId> proposals(const Rpn& rpn, ValueId im_info, const ProposalLimits& limits,
                                 std::optional<ValueId> map_sizes = {});

  ValueId pool_rois(ValueId features, ValueId rois,
                    std::optional<ValueId> map_sizes = {});  // [R,pooled_h,pooled_w,C]
  // What a layer makes, before any ReLU; relu() gives `top` its published name.
  ValueId conv(const std::string& layer, const std::string& top, Stage stage, ValueId src, const Conv2d& op,
               bool relu);
  ValueId linear(const std::string& layer, ValueId src, const std::string& top);
  ValueId relu(const std::string& layer, Stage stage, ValueId src, const std::string& top);

 private:
  ValueId weight(const std::string& layer, const char* which, int rank);
  const ModelConfig& config_;
  WeightSource weights_;
  Graph& graph_;
  DType operands_;
  bool any_trained_ = false;       // of the layers added so far
  bool backbone_trained_ = false;  // any of its layers
};

}  // namespace frcnn
