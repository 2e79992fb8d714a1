#include "detector/layers.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "detector/anchors.h"
#include "frcnn/error.h"

namespace frcnn {

ValueId Layers::backbone(ValueId top) {
  bool first = true;
  for (const BackboneLayer& layer : config_.backbone) {
    switch (layer.kind) {
      case BackboneLayer::Kind::conv:
        top = conv(layer.name, layer.name, Stage::backbone, top,
                   {layer.stride, layer.pad, {}, first ? DType::f32 : operands_}, layer.relu);
        first = false;
        break;
      case BackboneLayer::Kind::lrn:
        top = graph_.add1(layer.lrn, layer.name, Stage::backbone, {top}, layer.name);
        break;
      case BackboneLayer::Kind::max_pool: {
        MaxPool pool = layer.pool;
        std::vector<std::string> tops{layer.name};
        pool.save_argmax = any_trained_;
        if (pool.save_argmax) tops.push_back(layer.name + "@argmax");
        top = graph_.add(pool, layer.name, Stage::backbone, {top}, tops)[0];
        break;
      }
    }
  }
  backbone_trained_ = any_trained_;
  return top;
}

Layers::Rpn Layers::rpn(ValueId features) {
  const ValueId hidden =
      conv(config_.names.rpn_conv, config_.names.rpn_top, Stage::rpn, features, {1, 1, {}, operands_}, true);
  return {conv("rpn_cls_score", "rpn_cls_score", Stage::rpn, hidden, {}, false),
          conv("rpn_bbox_pred", "rpn_bbox_pred", Stage::rpn, hidden, {}, false), base_anchors(config_)};
}

std::vector<ValueId> Layers::proposals(const Rpn& rpn, ValueId im_info, const ProposalLimits& limits,
                                       std::optional<ValueId> map_sizes) {
  const ValueId prob = graph_.add1(Softmax{static_cast<int>(rpn.anchors.size())}, "rpn_cls_prob", Stage::rpn,
                                   {rpn.score}, "rpn_cls_prob_reshape");
  std::vector<ValueId> in{prob, rpn.deltas, im_info};
  if (map_sizes) in.push_back(*map_sizes);
  const auto decoded =
      graph_.add(DecodeProposals{rpn.anchors, static_cast<float>(config_.feat_stride),
                                 static_cast<float>(config_.rpn_min_size)},
                 "proposal", Stage::proposals, in, {"boxes@decoded", "scores@decoded", "rpn_nonfinite"});
  graph_.keep(decoded[2]);
  const auto top = graph_.add(TopK{limits.pre_nms_top_n}, "proposal_top_k", Stage::proposals,
                              {decoded[0], decoded[1]}, {"boxes@top", "scores@top", "count@top"});
  const std::int64_t candidates = graph_.value(top[1]).spec.shape[1];
  const std::int64_t most =
      limits.post_nms_top_n <= 0 ? candidates : std::min(limits.post_nms_top_n, candidates);
  return graph_.add(Nms{static_cast<float>(limits.nms), config_.suppress, most}, "proposal_nms",
                    Stage::proposals, top, {"rois", "roi_scores", "rois_count"});
}

ValueId Layers::pool_rois(ValueId features, ValueId rois, std::optional<ValueId> map_sizes) {
  const std::string& name = config_.names.roi_pool;
  std::vector<ValueId> in{features, rois};
  if (map_sizes) in.push_back(*map_sizes);
  if (config_.roi_op == RoiOp::align)
    return graph_.add1(RoiAlign{config_.pooled_h, config_.pooled_w, static_cast<float>(config_.spatial_scale),
                                config_.roi_sampling_ratio, config_.roi_aligned},
                       name, Stage::head, in, name);
  std::vector<std::string> tops{name};
  if (backbone_trained_) tops.push_back(name + "@argmax");
  return graph_.add(RoiPool{config_.pooled_h, config_.pooled_w, static_cast<float>(config_.spatial_scale),
                            backbone_trained_},
                    name, Stage::head, in, tops)[0];
}

ValueId Layers::weight(const std::string& layer, const char* which, int rank) {
  const std::string name = layer + which;
  const Shape shape = weights_.shape(name);
  if (shape.rank != rank)
    throw Error(ErrorCode::bad_model, fmt::format("{}: expected {} dimensions, {} has {}", name, rank,
                                                  weights_.name, to_string(shape)));
  if (!weights_.trained || !weights_.trained(layer)) return graph_.weight(name, shape);
  any_trained_ = true;
  return graph_.state(name, {shape, DType::f32});
}

// The published top is the value after the in-place ReLU; what the layer itself makes has no published name.
ValueId Layers::conv(const std::string& layer, const std::string& top, Stage stage, ValueId src,
                     const Conv2d& op, bool with_relu) {
  const ValueId w = weight(layer, ".weight", 4), b = weight(layer, ".bias", 1);
  const ValueId out = graph_.add1(op, layer, stage, {src, w, b}, with_relu ? top + "@linear" : top);
  return with_relu ? relu(layer, stage, out, top) : out;
}

ValueId Layers::linear(const std::string& layer, ValueId src, const std::string& top) {
  const ValueId w = weight(layer, ".weight", 2), b = weight(layer, ".bias", 1);
  return graph_.add1(Linear{}, layer, Stage::head, {src, w, b}, top);
}

ValueId Layers::relu(const std::string& layer, Stage stage, ValueId src, const std::string& top) {
  return graph_.add1(Relu{}, layer + " (relu)", stage, {src}, top);
}

}  // namespace frcnn
