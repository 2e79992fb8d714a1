#include "model_io/convert/implied.h"

#include <fmt/format.h>

#include <numeric>

#include "model_io/class_list.h"

namespace frcnn {
namespace {

using Dims = std::vector<std::int64_t>;

const Dims* weight(const TensorShapes& shapes, const std::string& layer) {
  const auto found = shapes.find(layer + ".weight");
  return found == shapes.end() ? nullptr : &found->second;
}

bool is_kernel(const Dims* dims, std::int64_t size) {
  return dims && dims->size() == 4 && (*dims)[2] == size && (*dims)[3] == size;
}

// Convolutions of each group, by the names conv<group>_<number>; empty if a kernel is not 3x3.
std::vector<int> vgg_groups(const TensorShapes& shapes) {
  std::vector<int> groups;
  for (int group = 1;; ++group) {
    int count = 0;
    while (const Dims* dims = weight(shapes, fmt::format("conv{}_{}", group, count + 1))) {
      if (!is_kernel(dims, 3)) return {};
      ++count;
    }
    if (count == 0) return groups;
    groups.push_back(count);
  }
}

std::optional<ImpliedTopology> vgg(const TensorShapes& shapes) {
  const std::vector<int> groups = vgg_groups(shapes);
  if (groups.size() < 2) return std::nullopt;
  ImpliedTopology topology;
  topology.backbone = vgg_backbone(groups);
  const int convolutions = std::accumulate(groups.begin(), groups.end(), 0);
  topology.name = fmt::format("VGG-{}", convolutions + 3);  // counted with its three fully connected layers
  topology.roi_pool = fmt::format("pool{}", groups.size());
  return topology;
}

std::optional<Dims> five_widths(const TensorShapes& shapes) {
  Dims widths;
  std::int64_t channels = 3;
  for (std::size_t i = 0; i < zf_kernels.size(); ++i) {
    const Dims* dims = weight(shapes, fmt::format("conv{}", i + 1));
    if (!is_kernel(dims, zf_kernels[i]) || (*dims)[1] != channels)
      return std::nullopt;  // grouped, or another net
    channels = (*dims)[0];
    widths.push_back(channels);
  }
  if (weight(shapes, "conv6")) return std::nullopt;
  return widths;
}

std::optional<ImpliedTopology> zf(const TensorShapes& shapes) {
  const auto widths = five_widths(shapes);
  // VGG_CNN_M has ZF's names and kernels, but other pads and normalisation; its widths are these.
  if (!widths || *widths == Dims{96, 256, 512, 512, 512}) return std::nullopt;
  ImpliedTopology topology;
  topology.name = "ZF";
  topology.backbone = zf_backbone();
  topology.roi_pool = "roi_pool_conv5";
  topology.pooled = 6;
  topology.dropout_test_scale = 0.5;
  return topology;
}

bool has_backbone(const TensorShapes& shapes, const PublishedBackbone& published) {
  if (published.groups.empty()) {
    const auto widths = five_widths(shapes);
    return widths && *widths == published.widths;
  }
  if (vgg_groups(shapes) != published.groups) return false;
  std::int64_t channels = 3;
  for (std::size_t g = 0; g < published.groups.size(); ++g)
    for (int i = 1; i <= published.groups[g]; ++i) {
      if (*weight(shapes, fmt::format("conv{}_{}", g + 1, i)) != Dims{published.widths[g], channels, 3, 3})
        return false;
      channels = published.widths[g];
    }
  return true;
}

bool has_shape(const TensorShapes& shapes, const char* layer, const Dims& dims) {
  const Dims* found = weight(shapes, layer);
  return found && *found == dims;
}

bool has_head(const TensorShapes& shapes, const PublishedBackbone& b, std::int64_t anchors,
              std::int64_t classes) {
  const std::int64_t last = b.widths.back();
  const Dims window{b.rpn, last, 3, 3};
  return (has_shape(shapes, "rpn_conv/3x3", window) || has_shape(shapes, "rpn_conv1", window)) &&
         has_shape(shapes, "rpn_cls_score", {2 * anchors, b.rpn, 1, 1}) &&
         has_shape(shapes, "rpn_bbox_pred", {4 * anchors, b.rpn, 1, 1}) &&
         has_shape(shapes, "fc6", {4096, last * b.pooled * b.pooled}) &&
         has_shape(shapes, "fc7", {4096, 4096}) && has_shape(shapes, "cls_score", {classes, 4096}) &&
         (has_shape(shapes, "bbox_pred", {4 * classes, 4096}) || has_shape(shapes, "bbox_pred", {4, 4096}));
}

}  // namespace

std::optional<ImpliedTopology> topology_of(const TensorShapes& shapes, Rounding pools) {
  auto topology = vgg(shapes);
  if (!topology) topology = zf(shapes);
  if (topology)
    for (BackboneLayer& layer : topology->backbone) layer.pool.rounding = pools;
  return topology;
}

std::optional<PublishedModel> published_model(const TensorShapes& shapes) {
  for (const PublishedBackbone& b : published_backbones()) {
    if (!has_backbone(shapes, b)) continue;
    const std::string name = b.name;
    // The release has VGG-16 and ZF detectors for PASCAL VOC, and VGG-16 for COCO with four scales.
    if ((name == "VGG-16" || name == "ZF") && has_head(shapes, b, 9, 21))
      return PublishedModel{name + " of PASCAL VOC", {8, 16, 32}, {0.5, 1, 2}, voc_classes()};
    if (name == "VGG-16" && has_head(shapes, b, 12, 81))
      return PublishedModel{name + " of COCO", {4, 8, 16, 32}, {0.5, 1, 2}, coco_classes()};
    const bool detector = weight(shapes, "rpn_cls_score") || weight(shapes, "cls_score");
    const bool head_fits =
        !weight(shapes, "fc6") || (has_shape(shapes, "fc6", {4096, b.widths.back() * b.pooled * b.pooled}) &&
                                   has_shape(shapes, "fc7", {4096, 4096}));
    if (!detector && head_fits) return PublishedModel{name + " of ImageNet", {}, {}, {}};
  }
  return std::nullopt;
}

}  // namespace frcnn
