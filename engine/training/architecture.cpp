#include "training/architecture.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "detector/published.h"
#include "frcnn/error.h"
#include "model_io/model_file.h"
#include "model_io/train_config_json.h"

namespace frcnn {
namespace {

[[noreturn]] void fail(const std::string& what) { throw Error(ErrorCode::invalid_argument, what); }

struct Architecture {
  const char* arch;
  const char* published;             // whose layers it has
  std::vector<std::int64_t> widths;  // empty: the published ones
  std::int64_t rpn = 0, fc = 4096;
};

const std::vector<Architecture>& architectures() {
  static const std::vector<Architecture> all{
      {"zf", "ZF", {}, 0, 4096},        {"zf-small", "ZF", {64, 128, 192, 192, 128}, 128, 384},
      {"vgg11", "VGG-11", {}, 0, 4096}, {"vgg13", "VGG-13", {}, 0, 4096},
      {"vgg16", "VGG-16", {}, 0, 4096}, {"vgg19", "VGG-19", {}, 0, 4096},
  };
  return all;
}

const Architecture& architecture_of(const std::string& arch) {
  for (const Architecture& one : architectures())
    if (one.arch == arch) return one;
  fail(fmt::format("there is no architecture {}; there are {}, and init with --init", arch,
                   fmt::join(architecture_names(), ", ")));
}

const PublishedBackbone& published_of(const Architecture& architecture) {
  const auto& all = published_backbones();
  return *std::find_if(all.begin(), all.end(),
                       [&](const auto& one) { return one.name == architecture.published; });
}

bool is_conv(const BackboneLayer& layer) { return layer.kind == BackboneLayer::Kind::conv; }

double total_stride(const std::vector<BackboneLayer>& backbone) {
  double stride = 1;
  for (const BackboneLayer& layer : backbone) {
    if (is_conv(layer)) stride *= layer.stride;
    if (layer.kind == BackboneLayer::Kind::max_pool) stride *= layer.pool.stride;
  }
  return stride;
}

// Everything that a shape depends on; filled from a published net or from the initial model, then overridden.
struct Sizes {
  std::vector<std::int64_t> conv;  // out channels, in order
  std::vector<std::array<std::int64_t, 2>> kernels;
  std::vector<int> groups;  // of a VGG
  std::int64_t rpn = 0, fc6 = 4096, fc7 = 4096;
};

Sizes sizes_of(const Architecture& architecture, const PublishedBackbone& published) {
  Sizes sizes;
  const auto& widths = architecture.widths.empty() ? published.widths : architecture.widths;
  if (published.groups.empty()) {
    sizes.conv = widths;
    for (const std::int64_t kernel : zf_kernels) sizes.kernels.push_back({kernel, kernel});
  } else {
    sizes.groups = published.groups;
    for (std::size_t g = 0; g < widths.size(); ++g)
      sizes.conv.insert(sizes.conv.end(), static_cast<std::size_t>(published.groups[g]), widths[g]);
    sizes.kernels.assign(sizes.conv.size(), {3, 3});
  }
  sizes.rpn = architecture.rpn ? architecture.rpn : published.rpn;
  sizes.fc6 = sizes.fc7 = architecture.fc;
  return sizes;
}

std::optional<std::int64_t> outputs_of(const Model& model, const std::string& layer) {
  if (!model.weights.has(layer + ".weight")) return std::nullopt;
  return model.weights.at(layer + ".weight").view.shape[0];
}

Sizes sizes_of(const Model& init) {
  Sizes sizes;
  for (const BackboneLayer& layer : init.config.backbone) {
    if (!is_conv(layer)) continue;
    const Shape& shape = init.weights.at(layer.name + ".weight").view.shape;
    sizes.conv.push_back(shape[0]);
    sizes.kernels.push_back({shape[2], shape[3]});
  }
  // A backbone says nothing of the RPN: the published ones are as wide as the map they read.
  sizes.rpn = outputs_of(init, init.config.names.rpn_conv).value_or(sizes.conv.back());
  sizes.fc6 = outputs_of(init, "fc6").value_or(sizes.fc6);
  sizes.fc7 = outputs_of(init, "fc7").value_or(sizes.fc7);
  return sizes;
}

void override_widths(Sizes& sizes, const ArchitectureConfig& wanted) {
  if (const auto& widths = wanted.conv_widths; !widths.empty()) {
    if (widths.size() == sizes.conv.size()) {
      sizes.conv = widths;
    } else if (!sizes.groups.empty() && widths.size() == sizes.groups.size()) {
      std::size_t at = 0;
      for (std::size_t g = 0; g < widths.size(); ++g)
        for (int i = 0; i < sizes.groups[g]; ++i) sizes.conv[at++] = widths[g];
    } else {
      fail(fmt::format("model.conv_widths: {} widths for the {} convolutions of {}{}", widths.size(),
                       sizes.conv.size(), wanted.arch,
                       sizes.groups.empty() ? "" : fmt::format(" in {} groups", sizes.groups.size())));
    }
  }
  if (wanted.rpn_width) sizes.rpn = wanted.rpn_width;
  if (wanted.fc6_width) sizes.fc6 = wanted.fc6_width;
  if (wanted.fc7_width) sizes.fc7 = wanted.fc7_width;
  std::vector<std::int64_t> all = sizes.conv;
  all.insert(all.end(), {sizes.rpn, sizes.fc6, sizes.fc7});
  for (const std::int64_t width : all)
    if (width < 1 || width > 65536) fail(fmt::format("model: a layer cannot be {} wide; 1 to 65536", width));
}

ModelConfig config_of_init(const Model& init) {
  ModelConfig config = init.config;
  if (config.kind == ModelKind::detector) return config;
  config.kind = ModelKind::detector;
  config.feat_stride = total_stride(config.backbone);
  config.spatial_scale = 1 / config.feat_stride;
  // An ImageNet net's fc6 tells how large a pooled RoI is.
  if (init.weights.has("fc6.weight")) {
    const double cells = static_cast<double>(init.weights.at("fc6.weight").view.shape[1]) /
                         static_cast<double>(sizes_of(init).conv.back());
    const int side = static_cast<int>(std::lround(std::sqrt(cells)));
    if (side >= 1 && side * side == cells) config.pooled_h = config.pooled_w = side;
  }
  return config;
}

ModelConfig config_of(const Architecture& architecture, const PublishedBackbone& published) {
  ModelConfig config;
  config.name = architecture.widths.empty() ? published.name : architecture.arch;
  config.backbone = backbone_of(architecture.arch);
  config.feat_stride = total_stride(config.backbone);
  config.spatial_scale = 1 / config.feat_stride;
  config.pooled_h = config.pooled_w = published.pooled;
  const bool zf = published.groups.empty();
  config.names.roi_pool = zf ? "roi_pool_conv5" : fmt::format("pool{}", published.groups.size());
  config.dropout_test_scale = zf ? 0.5 : 1;
  return config;
}

std::vector<LayerShape> layers_of(const ModelConfig& config, const Sizes& sizes) {
  std::vector<LayerShape> layers;
  std::int64_t channels = 3;
  std::size_t at = 0;
  for (const BackboneLayer& layer : config.backbone) {
    if (!is_conv(layer)) continue;
    layers.push_back({layer.name, {sizes.conv[at], channels, sizes.kernels[at][0], sizes.kernels[at][1]}});
    channels = sizes.conv[at++];
  }
  const auto anchors = static_cast<std::int64_t>(config.anchor_ratios.size() * config.anchor_scales.size());
  const auto classes = static_cast<std::int64_t>(config.classes.size());
  layers.push_back({config.names.rpn_conv, {sizes.rpn, channels, 3, 3}});
  layers.push_back({"rpn_cls_score", {2 * anchors, sizes.rpn, 1, 1}});
  layers.push_back({"rpn_bbox_pred", {4 * anchors, sizes.rpn, 1, 1}});
  layers.push_back({"fc6", {sizes.fc6, channels * config.pooled_h * config.pooled_w}});
  layers.push_back({"fc7", {sizes.fc7, sizes.fc6}});
  layers.push_back({"cls_score", {classes, sizes.fc7}});
  layers.push_back({"bbox_pred", {4 * classes, sizes.fc7}});
  return layers;
}

}  // namespace

std::vector<std::string> architecture_names() {
  std::vector<std::string> names;
  for (const Architecture& one : architectures()) names.emplace_back(one.arch);
  return names;
}

std::vector<BackboneLayer> backbone_of(const std::string& arch) {
  const PublishedBackbone& published = published_of(architecture_of(arch));
  return published.groups.empty() ? zf_backbone() : vgg_backbone(published.groups);
}

std::vector<std::string> published_frozen_layers(const std::vector<BackboneLayer>& backbone) {
  std::vector<std::string> frozen;
  for (const BackboneLayer& layer : backbone)
    if (is_conv(layer) && (layer.name.rfind("conv1_", 0) == 0 || layer.name.rfind("conv2_", 0) == 0))
      frozen.push_back(layer.name);
  return frozen;
}

NewDetector new_detector(const ArchitectureConfig& architecture, const std::vector<std::string>& classes,
                         const Model* init) {
  NewDetector detector;
  Sizes sizes;
  if (architecture.arch == arch_of_init) {
    if (!init) fail("the architecture init needs a model to start from: --init MODEL");
    detector.config = config_of_init(*init);
    sizes = sizes_of(*init);
  } else {
    const Architecture& known = architecture_of(architecture.arch);
    const PublishedBackbone& published = published_of(known);
    detector.config = config_of(known, published);
    sizes = sizes_of(known, published);
    if (init) {
      detector.config.pixel_mean = init->config.pixel_mean;
      if (init->config.kind == ModelKind::detector)
        detector.config.dropout_test_scale = init->config.dropout_test_scale;
    }
  }
  override_widths(sizes, architecture);
  detector.config.classes = classes;
  for (const auto& [key, value] : architecture.set) {
    if (key == "classes")
      fail("model.set.classes: classes are given by --classes or taken from the annotations");
    set_convention(detector.config, key, value);
  }
  if (classes.size() < 2) fail("there is no class to learn");
  detector.layers = layers_of(detector.config, sizes);
  return detector;
}

}  // namespace frcnn
