#include "detector/published.h"

namespace frcnn {
namespace {

BackboneLayer conv(const std::string& name, int stride, int pad) {
  BackboneLayer layer;
  layer.kind = BackboneLayer::Kind::conv;
  layer.name = name;
  layer.stride = stride;
  layer.pad = pad;
  return layer;
}

BackboneLayer pool(const std::string& name, int kernel, int stride, int pad) {
  BackboneLayer layer;
  layer.kind = BackboneLayer::Kind::max_pool;
  layer.name = name;
  layer.pool = MaxPool{kernel, stride, pad, Rounding::ceil};
  return layer;
}

// SPEC section 2: within channel, 3x3, alpha 5e-5, beta 0.75.
BackboneLayer zf_normalisation(const std::string& name) {
  BackboneLayer layer;
  layer.kind = BackboneLayer::Kind::lrn;
  layer.name = name;
  layer.lrn = Lrn{LrnRegion::within_channel, 3, 5e-5f, 0.75f, 1.0f};
  return layer;
}

}  // namespace

const std::vector<PublishedBackbone>& published_backbones() {
  static const std::vector<PublishedBackbone> all{
      {"VGG-11", {1, 1, 2, 2, 2}, {64, 128, 256, 512, 512}, 512, 7},
      {"VGG-13", {2, 2, 2, 2, 2}, {64, 128, 256, 512, 512}, 512, 7},
      {"VGG-16", {2, 2, 3, 3, 3}, {64, 128, 256, 512, 512}, 512, 7},
      {"VGG-19", {2, 2, 4, 4, 4}, {64, 128, 256, 512, 512}, 512, 7},
      {"ZF", {}, {96, 256, 384, 384, 256}, 256, 6},
  };
  return all;
}

std::vector<BackboneLayer> vgg_backbone(std::span<const int> groups) {
  std::vector<BackboneLayer> layers;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const std::string group = std::to_string(g + 1);
    for (int i = 1; i <= groups[g]; ++i)
      layers.push_back(conv("conv" + group + "_" + std::to_string(i), 1, 1));
    if (g + 1 < groups.size()) layers.push_back(pool("pool" + group, 2, 2, 0));
  }
  return layers;
}

std::vector<BackboneLayer> zf_backbone() {
  return {conv("conv1", 2, 3), zf_normalisation("norm1"), pool("pool1", 3, 2, 1),
          conv("conv2", 2, 2), zf_normalisation("norm2"), pool("pool2", 3, 2, 1),
          conv("conv3", 1, 1), conv("conv4", 1, 1),       conv("conv5", 1, 1)};
}

}  // namespace frcnn
