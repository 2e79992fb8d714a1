#include "detector/faster_rcnn.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "detector/layers.h"
#include "frcnn/error.h"

namespace frcnn {
namespace {

ValueId input_data(const ModelConfig& config, const GraphRequest& request, Graph& graph) {
  if (request.source == GraphRequest::Source::blob)
    return graph.input("data", {Shape{request.batch, request.height, request.width, 3}, DType::f32});
  const ValueId images = graph.input("images", {Shape{request.batch, sizeof(SourceImage)}, DType::u8});
  return graph.add1(Preprocess{config.pixel_mean, request.height, request.width}, "data", Stage::preprocess,
                    {images}, "data");
}

// fc6 or fc7: its ReLU, and the factor that stands for the dropout of training.
ValueId hidden(const ModelConfig& config, const std::string& layer, ValueId src, Layers& layers,
               Graph& graph) {
  const auto factor = static_cast<float>(config.dropout_test_scale);
  const ValueId sum = layers.linear(layer, src, layer + "@linear");
  const ValueId out = layers.relu(layer, Stage::head, sum, factor == 1.0f ? layer : layer + "@relu");
  return factor == 1.0f ? out : graph.add1(Scale{factor}, layer + " (dropout)", Stage::head, {out}, layer);
}

void head(const ModelConfig& config, ValueId features, const std::vector<ValueId>& rois, ValueId im_info,
          ValueId image_size, ValueId map_sizes, Layers& layers, Graph& graph) {
  ValueId top = layers.pool_rois(features, rois[0], map_sizes);
  std::vector<ValueId> rows{rois[0], rois[1], top};
  for (const char* layer : {"fc6", "fc7"}) rows.push_back(top = hidden(config, layer, top, layers, graph));
  const ValueId score = layers.linear("cls_score", top, "cls_score");
  const ValueId prob = graph.add1(Softmax{1}, "cls_prob", Stage::head, {score}, "cls_prob");
  const ValueId deltas = layers.linear("bbox_pred", top, "bbox_pred");
  const ValueId boxes = graph.add1(DecodeBoxes{}, "pred_boxes", Stage::head,
                                   {rois[0], deltas, im_info, image_size}, "pred_boxes");
  rows.insert(rows.end(), {score, prob, deltas, boxes});
  for (ValueId id : rows) graph.set_count(id, rois[2]);
  const auto found =
      graph.add(SelectDetections{static_cast<float>(config.score_threshold), static_cast<float>(config.nms),
                                 config.suppress, config.max_detections, config.keep_ties},
                "detections", Stage::head, {prob, boxes, rois[2]},
                {"detections", "detections_count", "head_nonfinite"});
  graph.set_count(found[0], found[1]);
  for (ValueId id : found) graph.keep(id);
}

}  // namespace

Graph build_graph(const Model& model, const GraphRequest& request) {
  if (request.batch < 1 || request.height < 1 || request.width < 1)
    throw Error(ErrorCode::invalid_argument, fmt::format("an input of {} images of {}x{} has nothing in it",
                                                         request.batch, request.width, request.height));
  Graph graph;
  const ModelConfig& config = model.config;
  Layers layers(config,
                {[&](const std::string& tensor) { return model.weights.at(tensor).view.shape; },
                 model.weights.source(),
                 {}},
                graph);
  const ValueId data = input_data(config, request, graph);
  if (config.kind == ModelKind::backbone) {
    graph.keep(layers.backbone(data));
    return graph;
  }
  const std::int64_t n = request.batch;
  const ValueId im_info = graph.input("im_info", {Shape{n, 3}});
  const ValueId image_size = graph.input("image_size", {Shape{n, 2}});
  const ValueId map_sizes = graph.input("map_sizes", {Shape{n, 4}, DType::i32});
  const ValueId features = layers.backbone(data);
  std::vector<ValueId> rois;
  if (request.external_rois > 0)
    rois = {graph.input("rois", {Shape{n * request.external_rois, 5}}),
            graph.input("roi_scores", {Shape{n * request.external_rois}}),
            graph.input("rois_count", {Shape{n}, DType::i32})};
  else
    rois = layers.proposals(layers.rpn(features), im_info,
                            {config.pre_nms_top_n, config.post_nms_top_n, config.rpn_nms}, map_sizes);
  head(config, features, rois, im_info, image_size, map_sizes, layers, graph);
  for (ValueId id : rois) graph.keep(id);
  return graph;
}

double image_scale(const ModelConfig& config, std::int64_t height, std::int64_t width) {
  const auto shorter = static_cast<double>(std::min(height, width)),
             longer = static_cast<double>(std::max(height, width));
  const double scale = config.short_side / shorter;
  return std::nearbyint(scale * longer) > config.long_side ? config.long_side / longer : scale;
}

}  // namespace frcnn
