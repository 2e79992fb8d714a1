#include "detector/map_sizes.h"

#include "graph/shapes.h"

namespace frcnn {

MapSizes::MapSizes(const Model& model) {
  const auto convolution = [&](const std::string& name, std::int64_t stride, std::int64_t pad) {
    const Shape& weight = model.weights.at(name + ".weight").view.shape;
    return Layer{weight[2], weight[3], stride, pad, false, {}};
  };
  for (const BackboneLayer& layer : model.config.backbone) {
    if (layer.kind == BackboneLayer::Kind::conv)
      backbone_.push_back(convolution(layer.name, layer.stride, layer.pad));
    if (layer.kind == BackboneLayer::Kind::max_pool) backbone_.push_back({0, 0, 0, 0, true, layer.pool});
  }
  if (model.config.kind == ModelKind::detector)
    rpn_.push_back(convolution(model.config.names.rpn_conv, 1, 1));  // as Layers::rpn() has it
}

std::array<std::int32_t, 4> MapSizes::of(std::int64_t height, std::int64_t width) const {
  const auto follow = [&](const std::vector<Layer>& layers) {
    for (const Layer& layer : layers) {
      height = layer.pools ? pooled_size(height, layer.pool)
                           : convolved_size(height, layer.kernel_h, layer.stride, layer.pad);
      width = layer.pools ? pooled_size(width, layer.pool)
                          : convolved_size(width, layer.kernel_w, layer.stride, layer.pad);
    }
    return std::array{static_cast<std::int32_t>(height), static_cast<std::int32_t>(width)};
  };
  const auto features = follow(backbone_), rpn = follow(rpn_);
  return {features[0], features[1], rpn[0], rpn[1]};
}

}  // namespace frcnn
