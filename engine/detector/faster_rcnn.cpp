#include "detector/faster_rcnn.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "detector/anchors.h"
#include "frcnn/error.h"

namespace frcnn {
namespace {

// Adds the published layers to one graph, taking every width from the weights.
class Builder {
 public:
  Builder(const Model& model, Graph& graph) : model_(model), config_(model.config), graph_(graph) {}

  ValueId input_data(const GraphRequest& request) {
    if (request.source == GraphRequest::Source::blob)
      return graph_.input("data", {Shape{request.batch, request.height, request.width, 3}, DType::f32});
    Preprocess op{request.scale, config_.pixel_mean, request.format};
    Shape shape{request.batch, request.height, request.width, 3};
    if (request.format == PixelFormat::nv12) {
      op.height = request.height;
      op.width = request.width;
      shape = Shape{request.batch, op.height + (op.height + 1) / 2, (op.width + 1) / 2 * 2};
    }
    const ValueId image = graph_.input("image", {shape, DType::u8});
    return graph_.add1(op, "data", Stage::preprocess, {image}, "data");
  }

  ValueId backbone(ValueId top) {
    for (const BackboneLayer& layer : config_.backbone) {
      switch (layer.kind) {
        case BackboneLayer::Kind::conv:
          top = conv(layer.name, layer.name, Stage::backbone, top, layer.stride, layer.pad, layer.relu);
          break;
        case BackboneLayer::Kind::lrn:
          top = graph_.add1(layer.lrn, layer.name, Stage::backbone, {top}, layer.name);
          break;
        case BackboneLayer::Kind::max_pool:
          top = graph_.add1(layer.pool, layer.name, Stage::backbone, {top}, layer.name);
          break;
      }
    }
    return top;
  }

  // rois, their scores and how many there are, by the region proposal network.
  std::vector<ValueId> proposals(ValueId features, ValueId im_info) {
    const std::vector<std::array<float, 4>> anchors = base_anchors(config_);
    const ValueId hidden = conv(config_.names.rpn_conv, config_.names.rpn_top, Stage::rpn, features, 1, 1, true);
    const ValueId score = conv("rpn_cls_score", "rpn_cls_score", Stage::rpn, hidden, 1, 0, false);
    const ValueId deltas = conv("rpn_bbox_pred", "rpn_bbox_pred", Stage::rpn, hidden, 1, 0, false);
    const auto groups = static_cast<int>(anchors.size());
    const ValueId prob = graph_.add1(Softmax{groups}, "rpn_cls_prob", Stage::rpn, {score}, "rpn_cls_prob_reshape");
    const auto decoded = graph_.add(
        DecodeProposals{anchors, static_cast<float>(config_.feat_stride), static_cast<float>(config_.rpn_min_size)},
        "proposal", Stage::proposals, {prob, deltas, im_info}, {"boxes@decoded", "scores@decoded", "rpn_nonfinite"});
    graph_.keep(decoded[2]);
    const auto top = graph_.add(TopK{config_.pre_nms_top_n}, "proposal_top_k", Stage::proposals, {decoded[0], decoded[1]},
                                {"boxes@top", "scores@top", "count@top"});
    const std::int64_t candidates = graph_.value(top[1]).spec.shape[1];
    const std::int64_t limit = config_.post_nms_top_n <= 0 ? candidates : std::min(config_.post_nms_top_n, candidates);
    return graph_.add(Nms{static_cast<float>(config_.rpn_nms), config_.suppress, limit}, "proposal_nms", Stage::proposals,
                      top, {"rois", "roi_scores", "rois_count"});
  }

  void head(ValueId features, const std::vector<ValueId>& rois, ValueId im_info, ValueId image_size) {
    Op pooling = RoiPool{config_.pooled_h, config_.pooled_w, static_cast<float>(config_.spatial_scale)};
    if (config_.roi_op == RoiOp::align)
      pooling = RoiAlign{config_.pooled_h, config_.pooled_w, static_cast<float>(config_.spatial_scale),
                         config_.roi_sampling_ratio, config_.roi_aligned};
    ValueId top = graph_.add1(std::move(pooling), config_.names.roi_pool, Stage::head, {features, rois[0]}, config_.names.roi_pool);
    std::vector<ValueId> rows{rois[0], rois[1], top};
    for (const char* layer : {"fc6", "fc7"}) rows.push_back(top = hidden(layer, top));
    const ValueId score = linear("cls_score", top, "cls_score");
    const ValueId prob = graph_.add1(Softmax{1}, "cls_prob", Stage::head, {score}, "cls_prob");
    const ValueId deltas = linear("bbox_pred", top, "bbox_pred");
    const ValueId boxes = graph_.add1(DecodeBoxes{}, "pred_boxes", Stage::head, {rois[0], deltas, im_info, image_size}, "pred_boxes");
    rows.insert(rows.end(), {score, prob, deltas, boxes});
    for (ValueId id : rows) graph_.set_count(id, rois[2]);
    const auto found = graph_.add(
        SelectDetections{static_cast<float>(config_.score_threshold), static_cast<float>(config_.nms), config_.suppress,
                         config_.max_detections, config_.keep_ties},
        "detections", Stage::head, {prob, boxes, rois[2]}, {"detections", "detections_count", "head_nonfinite"});
    graph_.set_count(found[0], found[1]);
    for (ValueId id : found) graph_.keep(id);
  }

 private:
  ValueId weight(const std::string& name, int rank) {
    const Shape& shape = model_.weights.at(name).view.shape;
    if (shape.rank != rank)
      throw Error(ErrorCode::bad_model, fmt::format("{}: expected {} dimensions, {} has {}", name, rank,
                                                    model_.weights.source(), to_string(shape)));
    return graph_.weight(name, shape);
  }

  // The published top is the value after the in-place ReLU; what the layer itself makes has no published name.
  ValueId conv(const std::string& layer, const std::string& top, Stage stage, ValueId src, int stride, int pad, bool relu) {
    const ValueId w = weight(layer + ".weight", 4), b = weight(layer + ".bias", 1);
    const ValueId out = graph_.add1(Conv2d{stride, pad, {}}, layer, stage, {src, w, b}, relu ? top + "@linear" : top);
    return relu ? graph_.add1(Relu{}, layer + " (relu)", stage, {out}, top) : out;
  }

  ValueId linear(const std::string& layer, ValueId src, const std::string& top) {
    const ValueId w = weight(layer + ".weight", 2), b = weight(layer + ".bias", 1);
    return graph_.add1(Linear{}, layer, Stage::head, {src, w, b}, top);
  }

  ValueId hidden(const std::string& layer, ValueId src) {
    const float factor = static_cast<float>(config_.dropout_test_scale);
    const ValueId sum = linear(layer, src, layer + "@linear");
    const ValueId out = graph_.add1(Relu{}, layer + " (relu)", Stage::head, {sum}, factor == 1.0f ? layer : layer + "@relu");
    return factor == 1.0f ? out : graph_.add1(Scale{factor}, layer + " (dropout)", Stage::head, {out}, layer);
  }

  const Model& model_;
  const ModelConfig& config_;
  Graph& graph_;
};

}  // namespace

Graph build_graph(const Model& model, const GraphRequest& request) {
  if (request.batch < 1 || request.height < 1 || request.width < 1)
    throw Error(ErrorCode::invalid_argument,
                fmt::format("an input of {} images of {}x{} has nothing in it", request.batch, request.width, request.height));
  Graph graph;
  Builder build(model, graph);
  const ValueId data = build.input_data(request);
  if (model.config.kind == ModelKind::backbone) {
    graph.keep(build.backbone(data));
    return graph;
  }
  const std::int64_t n = request.batch;
  const ValueId im_info = graph.input("im_info", {Shape{n, 3}});
  const ValueId image_size = graph.input("image_size", {Shape{n, 2}});
  const ValueId features = build.backbone(data);
  std::vector<ValueId> rois;
  if (request.external_rois > 0)
    rois = {graph.input("rois", {Shape{n * request.external_rois, 5}}),
            graph.input("roi_scores", {Shape{n * request.external_rois}}), graph.input("rois_count", {Shape{n}, DType::i32})};
  else
    rois = build.proposals(features, im_info);
  build.head(features, rois, im_info, image_size);
  for (ValueId id : rois) graph.keep(id);
  return graph;
}

double image_scale(const ModelConfig& config, std::int64_t height, std::int64_t width) {
  const auto shorter = static_cast<double>(std::min(height, width)), longer = static_cast<double>(std::max(height, width));
  const double scale = config.short_side / shorter;
  return std::nearbyint(scale * longer) > config.long_side ? config.long_side / longer : scale;
}

}  // namespace frcnn
