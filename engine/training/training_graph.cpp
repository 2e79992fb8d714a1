#include "training/training_graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "frcnn/error.h"
#include "graph/backward.h"

namespace frcnn {
namespace {

// Targets of the two halves, drawn or given.
struct RpnTargets {
  ValueId labels, targets, inside, outside;
};
struct HeadTargets {
  ValueId rois, labels, targets, inside, outside, count;
};

class Builder {
 public:
  Builder(const TrainingModel& model, const WeightSource& weights, const TrainConfig& config,
          const TrainingGraphRequest& request)
      : model_(model.config),
        input_pad_(model.input_pad),
        config_(config),
        request_(request),
        layers_(model_, weights, graph_, request.operands) {}

  Graph build() {
    im_info_ = graph_.input("im_info", {Shape{1, 3}});
    random_key_ = graph_.input("random_key", {Shape{4}, DType::i32});
    if (!given()) {
      gt_boxes_ = graph_.input("gt_boxes", {Shape{1, request_.boxes, 5}});
      gt_count_ = graph_.input("gt_count", {Shape{1}, DType::i32});
    }
    const ValueId features = layers_.backbone(data());
    const Layers::Rpn rpn = layers_.rpn(features);
    const RpnTargets anchors = rpn_targets(rpn);
    const HeadTargets rois = head_targets(rpn);
    rpn_losses(rpn, anchors);
    head(features, rois);
    append_backward(graph_, request_.accumulate);
    return std::move(graph_);
  }

 private:
  bool given() const { return request_.source == TrainingGraphRequest::Source::given; }
  Shape of(ValueId id) const { return graph_.value(id).spec.shape; }
  ValueId real(const char* name, Shape shape) { return graph_.input(name, {shape}); }
  ValueId whole(const char* name, Shape shape) { return graph_.input(name, {shape, DType::i32}); }

  // The network's input in the units it is trained in.
  ValueId data() {
    const UnitsConfig& units = config_.units;
    ValueId data;
    if (given()) {
      data = real("data", {1, request_.height, request_.width, 3});
    } else {
      const ValueId source = graph_.input("images", {Shape{1, sizeof(SourceImage)}, DType::u8});
      const ValueId pixels = graph_.input("pixels", {Shape{request_.height, request_.width, 3}, DType::u8});
      const auto scaled = [&](std::int64_t side) {
        return std::llrint(static_cast<double>(side) * request_.scale);
      };
      data = graph_.add1(Preprocess{model_.pixel_mean, scaled(request_.height), scaled(request_.width)}, "data",
                         Stage::preprocess, {source, pixels}, "data");
    }
    if (input_pad_ == 0 && units.input_scale == 1 && units.input_offset == std::array<double, 3>{})
      return data;
    InputUnits op{input_pad_, {}, static_cast<float>(1.0 / units.input_scale)};
    for (std::size_t c = 0; c < 3; ++c) op.offset[c] = static_cast<float>(units.input_offset[c]);
    return graph_.add1(op, "data (units)", Stage::preprocess, {data}, "data@units");
  }

  RpnTargets rpn_targets(const Layers::Rpn& rpn) {
    const Shape map = of(rpn.score);
    const auto a = static_cast<std::int64_t>(rpn.anchors.size());
    if (given()) {
      const Shape boxes{1, map[1], map[2], 4 * a};
      return {whole("rpn_labels", {1, map[1], map[2], a}), real("rpn_bbox_targets", boxes),
              real("rpn_bbox_inside_weights", boxes), real("rpn_bbox_outside_weights", boxes)};
    }
    const AnchorTargetConfig& c = config_.rpn;
    const AnchorTargets op{rpn.anchors,
                           static_cast<float>(model_.feat_stride),
                           map[1],
                           map[2],
                           c.positive_iou,
                           c.negative_iou,
                           c.allowed_border,
                           c.batch,
                           c.positive_fraction,
                           c.positives,
                           c.untouched,
                           config_.loss.norm,
                           config_.loss.rpn_lambda};
    const auto out =
        graph_.add(op, "rpn-data", Stage::loss, {gt_boxes_, gt_count_, im_info_, random_key_},
                   {"rpn_labels", "rpn_bbox_targets", "rpn_bbox_inside_weights", "rpn_bbox_outside_weights"});
    return {out[0], out[1], out[2], out[3]};
  }

  HeadTargets head_targets(const Layers::Rpn& rpn) {
    const RoiTargetConfig& c = config_.roi;
    const auto classes = static_cast<std::int64_t>(model_.classes.size());
    if (given()) {
      const Shape boxes{c.batch, 4 * classes};
      return {real("rois", {c.batch, 5}),          whole("labels", {c.batch}),
              real("bbox_targets", boxes),         real("bbox_inside_weights", boxes),
              real("bbox_outside_weights", boxes), whole("rois_count", {1})};
    }
    const TrainProposalConfig& p = config_.proposals;
    const auto proposals = layers_.proposals(rpn, im_info_, {p.pre_nms_top_n, p.post_nms_top_n, p.nms});
    RoiTargets op{classes,
                  c.batch,
                  c.foreground_fraction,
                  c.foreground_iou,
                  c.background_iou_high,
                  c.background_iou_low};
    for (std::size_t i = 0; i < 4; ++i) {
      op.means[i] = static_cast<float>(c.means[i]);
      op.stds[i] = static_cast<float>(c.stds[i]);
    }
    const auto out = graph_.add(op, "roi-data", Stage::loss,
                                {proposals[0], proposals[2], gt_boxes_, gt_count_, random_key_},
                                {"rois@drawn", "labels", "bbox_targets", "bbox_inside_weights",
                                 "bbox_outside_weights", "count@drawn"});
    return {out[0], out[1], out[2], out[3], out[4], out[5]};
  }

  void rpn_losses(const Layers::Rpn& rpn, const RpnTargets& t) {
    const bool paper = config_.loss.norm == LossNorm::paper;
    loss(SoftmaxLoss{static_cast<int>(rpn.anchors.size()), paper ? 256.0 : 0.0}, {rpn.score, t.labels},
         "rpn_cls_loss");
    loss(SmoothL1Loss{config_.loss.rpn_sigma}, {rpn.deltas, t.targets, t.inside, t.outside}, "rpn_loss_bbox");
  }

  void head(ValueId features, const HeadTargets& t) {
    ValueId top = layers_.pool_rois(features, t.rois);
    std::uint32_t number = 0;
    for (const char* layer : {"fc6", "fc7"}) {
      const ValueId sum = layers_.linear(layer, top, std::string(layer) + "@linear");
      top = layers_.relu(layer, Stage::head, sum, layer);
      const auto ratio = static_cast<float>(config_.dropout);
      const float scale = config_.dropout_scales_in_training ? 1.0f / (1.0f - ratio) : 1.0f;
      if (ratio > 0)
        top = graph_.add1(Dropout{ratio, scale, number}, std::string(layer) + " (dropout)", Stage::head,
                          {top, random_key_}, std::string(layer) + "@dropout");
      ++number;
    }
    const ValueId score = layers_.linear("cls_score", top, "cls_score");
    const ValueId deltas = layers_.linear("bbox_pred", top, "bbox_pred");
    loss(SoftmaxLoss{}, {score, t.labels}, "loss_cls");
    loss(SmoothL1Loss{config_.loss.head_sigma}, {deltas, t.targets, t.inside, t.outside, t.count},
         "loss_bbox");
  }

  void loss(Op op, std::vector<ValueId> in, const std::string& name) {
    const std::string source = graph_.value(in[0]).name;
    graph_.keep(graph_.add(std::move(op), name, Stage::loss, std::move(in), {name, source + "@d"})[0]);
  }

  const ModelConfig& model_;
  int input_pad_;
  const TrainConfig& config_;
  const TrainingGraphRequest& request_;
  Graph graph_;
  Layers layers_;
  ValueId im_info_ = -1, random_key_ = -1, gt_boxes_ = -1, gt_count_ = -1;
};

}  // namespace

Graph build_training_graph(const TrainingModel& model, const WeightSource& weights, const TrainConfig& config,
                           const TrainingGraphRequest& request) {
  if (request.height < 1 || request.width < 1 || request.boxes < 1)
    throw Error(ErrorCode::invalid_argument, fmt::format("an image of {}x{} with room for {} boxes",
                                                         request.width, request.height, request.boxes));
  return Builder(model, weights, config, request).build();
}

std::vector<std::string> layer_names(const ModelConfig& model) {
  std::vector<std::string> names;
  for (const BackboneLayer& layer : model.backbone)
    if (layer.kind == BackboneLayer::Kind::conv) names.push_back(layer.name);
  names.insert(names.end(), {model.names.rpn_conv, "rpn_cls_score", "rpn_bbox_pred", "fc6", "fc7",
                             "cls_score", "bbox_pred"});
  return names;
}

std::string velocity_name(const std::string& parameter) { return parameter + "@velocity"; }
std::string average_name(const std::string& parameter) { return parameter + "@average"; }

Graph build_update_graph(std::span<const Parameter> parameters, const SolverConfig& solver,
                         std::int64_t accumulated) {
  Graph graph;
  const ValueId rates = graph.input("rates", {Shape{2}});
  std::vector<ValueId> gradients;
  for (const Parameter& p : parameters)
    gradients.push_back(graph.state(gradient_name(p.name), {p.shape, DType::f32}));
  const double scale = 1.0 / static_cast<double>(accumulated);
  const auto clip = graph.add(ClipGradients{solver.clip_norm, scale}, "clip", Stage::update, gradients,
                              {"clip_factor", "gradient_norms"});
  graph.keep(clip[1]);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& p = parameters[i];
    const TensorSpec spec{p.shape, DType::f32};
    Sgd op{solver.momentum, p.is_bias ? solver.bias_lr_mult : 1,
           p.is_bias && !solver.decay_biases ? 0 : solver.weight_decay, scale, solver.average_decay > 0};
    std::vector<ValueId> states{graph.state(p.name, spec), graph.state(velocity_name(p.name), spec)};
    if (op.average) states.push_back(graph.state(average_name(p.name), spec));
    graph.add_into(op, p.name, Stage::update, {gradients[i], clip[0], rates}, states);
  }
  return graph;
}

}  // namespace frcnn
