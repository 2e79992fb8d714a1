// A detector small enough to be made in a test: two convolutions, three classes, random weights that are the
// same on every machine.
#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "detector/config.h"
#include "model_io/model_file.h"
#include "model_io/safetensors.h"

namespace frcnn::tiny {

inline ModelConfig config() {
  ModelConfig c;
  c.name = "tiny";
  BackboneLayer conv1, pool1, conv2;
  conv1.name = "conv1";
  conv1.stride = 2;
  conv1.pad = 1;
  pool1.kind = BackboneLayer::Kind::max_pool;
  pool1.name = "pool1";
  conv2.name = "conv2";
  conv2.stride = 2;
  conv2.pad = 1;
  c.backbone = {conv1, pool1, conv2};
  c.classes = {"__background__", "cat", "dog"};
  c.short_side = 64;
  c.long_side = 96;
  c.feat_stride = 8;
  c.spatial_scale = 0.125;
  c.anchor_scales = {1, 2};
  c.rpn_min_size = 4;
  c.post_nms_top_n = 30;
  c.pooled_h = c.pooled_w = 3;
  c.score_threshold = 0.05;
  return c;
}

struct Tensor {
  std::vector<std::int64_t> shape;
  std::vector<float> values;
};
using Tensors = std::map<std::string, Tensor>;

inline Tensors tensors(const ModelConfig& c) {
  std::mt19937 random(7);  // its raw output is the same everywhere, distributions are not
  Tensors all;
  const auto add = [&](const std::string& layer, std::vector<std::int64_t> shape, float size) {
    const std::int64_t out = shape[0];
    for (const char* part : {".weight", ".bias"}) {
      Tensor tensor;
      tensor.shape = *(part + 1) == 'w' ? shape : std::vector<std::int64_t>{out};
      std::int64_t count = 1;
      for (const std::int64_t d : tensor.shape) count *= d;
      for (std::int64_t i = 0; i < count; ++i) {
        tensor.values.push_back((static_cast<float>(random()) / 4294967296.0f - 0.5f) * 2 * size);
      }
      all[layer + part] = std::move(tensor);
    }
  };
  const auto anchors = static_cast<std::int64_t>(c.anchor_ratios.size() * c.anchor_scales.size());
  const auto classes = static_cast<std::int64_t>(c.classes.size());
  add("conv1", {8, 3, 3, 3}, 0.05f);
  add("conv2", {8, 8, 3, 3}, 0.2f);
  add(c.names.rpn_conv, {8, 8, 3, 3}, 0.2f);
  add("rpn_cls_score", {2 * anchors, 8, 1, 1}, 0.5f);
  add("rpn_bbox_pred", {4 * anchors, 8, 1, 1}, 0.1f);
  add("fc6", {16, 8 * c.pooled_h * c.pooled_w}, 0.2f);
  add("fc7", {16, 16}, 0.4f);
  add("cls_score", {classes, 16}, 0.4f);
  add("bbox_pred", {4 * classes, 16}, 0.1f);
  return all;
}

inline std::vector<StoredTensor> stored(const Tensors& tensors) {
  std::vector<StoredTensor> list;
  for (const auto& [name, tensor] : tensors) {
    list.push_back(
        {name, DType::f32, tensor.shape, tensor.values.data(), tensor.values.size() * sizeof(float)});
  }
  return list;
}

inline void save(const std::string& path, const ModelConfig& c, const Tensors& t) {
  save_model(path, c, stored(t));
}
inline void save(const std::string& path) { save(path, config(), tensors(config())); }

inline void save_backbone(const std::string& path) {
  ModelConfig c = config();
  Tensors all = tensors(c), kept;
  c.kind = ModelKind::backbone;
  c.classes.clear();
  for (auto& [name, tensor] : all) {
    if (name.rfind("conv", 0) == 0) kept[name] = std::move(tensor);
  }
  save(path, c, kept);
}

}  // namespace frcnn::tiny
