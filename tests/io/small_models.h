// Tiny detectors for tests: a configuration and weights that fit it.
#pragma once

#include <deque>
#include <random>
#include <string>
#include <vector>

#include "graph/dtype.h"
#include "model_io/model_file.h"

namespace frcnn::small_models {

// Tensors that own their bytes. Weights are random in [-1, 1].
class WeightSet {
 public:
  WeightSet& add(const std::string& name, std::vector<std::int64_t> shape, DType dtype = DType::f32) {
    std::size_t elements = 1;
    for (const std::int64_t dim : shape) elements *= static_cast<std::size_t>(dim);
    std::vector<float> values(elements);
    for (float& x : values) x = std::uniform_real_distribution<float>(-1, 1)(random_);
    bytes_.emplace_back(elements * size_of(dtype));
    if (dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16)
      from_f32(values.data(), elements, dtype, bytes_.back().data());
    tensors_.push_back({name, dtype, std::move(shape), bytes_.back().data(), bytes_.back().size()});
    return *this;
  }
  WeightSet& layer(const std::string& name, std::vector<std::int64_t> shape, DType dtype = DType::f32) {
    const std::int64_t outputs = shape.front();
    return add(name + ".weight", std::move(shape), dtype).add(name + ".bias", {outputs}, dtype);
  }
  WeightSet& remove(const std::string& name) {
    std::erase_if(tensors_, [&](const StoredTensor& t) { return t.name == name; });
    return *this;
  }
  WeightSet& replace(const std::string& name, std::vector<std::int64_t> shape, DType dtype = DType::f32) {
    return remove(name).add(name, std::move(shape), dtype);
  }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }

 private:
  std::mt19937 random_{1};
  std::deque<std::vector<std::byte>> bytes_;   // a deque: pointers into it stay valid
  std::vector<StoredTensor> tensors_;
};

inline BackboneLayer conv(const std::string& name, int stride, int pad, bool relu = true) {
  BackboneLayer layer;
  layer.name = name;
  layer.stride = stride;
  layer.pad = pad;
  layer.relu = relu;
  return layer;
}

// A ZF-like detector: every kind of layer, odd sizes, 3 classes, 2 ratios x 2 scales, a 5x3 kernel.
inline ModelConfig config() {
  ModelConfig c;
  c.name = "small";
  BackboneLayer norm, pool;
  norm.kind = BackboneLayer::Kind::lrn;
  norm.name = "norm1";
  norm.lrn = {LrnRegion::across_channels, 5, 1e-4f, 0.75f, 2.0f};
  pool.kind = BackboneLayer::Kind::max_pool;
  pool.name = "pool1";
  pool.pool = {3, 2, 1, Rounding::floor};
  c.backbone = {conv("conv1", 2, 3), norm, pool, conv("conv2", 1, 1, false)};
  c.names = {"rpn_conv1", "rpn/output", "roi_pool_conv5"};
  c.classes = {"__background__", "cell", "platelet \xc3\xa9 \"x\""};
  c.anchor_ratios = {0.5, 2};
  c.anchor_scales = {3, 8.25};
  c.pooled_h = 3;
  c.pooled_w = 2;
  c.dropout_test_scale = 0.5;
  return c;
}

inline WeightSet weights(DType dtype = DType::f32, bool class_agnostic = false) {
  WeightSet w;
  w.layer("conv1", {4, 3, 7, 7}, dtype).layer("conv2", {5, 4, 5, 3}, dtype).layer("rpn_conv1", {6, 5, 3, 3}, dtype);
  w.layer("rpn_cls_score", {8, 6, 1, 1}, dtype).layer("rpn_bbox_pred", {16, 6, 1, 1}, dtype);
  w.layer("fc6", {7, 30}, dtype).layer("fc7", {9, 7}, dtype);
  w.layer("cls_score", {3, 9}, dtype).layer("bbox_pred", {class_agnostic ? 4 : 12, 9}, dtype);
  return w;
}

}  // namespace frcnn::small_models
