// A network small enough to train in a test, pictures to train it with, and a few steps of it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "training/train_network.h"

namespace frcnn::small {

// A ZF net of a few channels, with every kind of layer that the published ones have.
inline ModelConfig small_model() {
  ModelConfig config;
  config.name = "small";
  const auto conv = [](const char* name, int stride, int pad) {
    BackboneLayer layer;
    layer.name = name;
    layer.stride = stride;
    layer.pad = pad;
    return layer;
  };
  const auto lrn = [](const char* name) {
    BackboneLayer layer;
    layer.kind = BackboneLayer::Kind::lrn;
    layer.name = name;
    return layer;
  };
  const auto pool = [](const char* name) {
    BackboneLayer layer;
    layer.kind = BackboneLayer::Kind::max_pool;
    layer.name = name;
    layer.pool = {3, 2, 1};
    return layer;
  };
  config.backbone = {conv("conv1", 2, 3), lrn("norm1"),  pool("pool1"),      conv("conv2", 2, 2),
                     lrn("norm2"),        pool("pool2"), conv("conv3", 1, 1)};
  config.classes = {"background", "light", "dark"};
  config.short_side = 96;
  config.long_side = 160;
  config.anchor_scales = {2, 4};
  config.pooled_h = config.pooled_w = 3;
  config.rpn_min_size = 4;
  config.post_nms_top_n = 20;
  config.dropout_test_scale = 0.5;
  return config;
}

inline HostTensors random_weights(const ModelConfig& config, unsigned seed) {
  std::mt19937 random(seed);
  HostTensors weights;
  const auto add = [&](const std::string& name, Shape shape, double std) {
    HostTensor w{shape, std::vector<float>(static_cast<std::size_t>(shape.elements()))};
    for (float& x : w.data) {
      double sum = -6;
      for (int i = 0; i < 12; ++i) sum += static_cast<double>(random() >> 8) / 16777216.0;
      x = static_cast<float>(sum * std);
    }
    weights[name + ".weight"] = w;
    weights[name + ".bias"] = {{shape[0]}, std::vector<float>(static_cast<std::size_t>(shape[0]), 0.0f)};
  };
  const std::int64_t anchors = 3 * static_cast<std::int64_t>(config.anchor_scales.size()),
                     classes = static_cast<std::int64_t>(config.classes.size());
  const auto he = [](double fan) { return std::sqrt(2 / fan); };
  add("conv1", {8, 3, 7, 7}, he(147) / 16);
  add("conv2", {12, 8, 5, 5}, he(200));
  add("conv3", {16, 12, 3, 3}, he(108));
  add(config.names.rpn_conv, {16, 16, 3, 3}, he(144));
  add("rpn_cls_score", {2 * anchors, 16, 1, 1}, 0.01);
  add("rpn_bbox_pred", {4 * anchors, 16, 1, 1}, 0.01);
  add("fc6", {24, 16 * 9}, he(144));
  add("fc7", {24, 24}, he(24));
  add("cls_score", {classes, 24}, 0.01);
  add("bbox_pred", {4 * classes, 24}, 0.001);
  return weights;
}

struct Picture {
  int width = 150, height = 110;
  std::vector<std::uint8_t> bgr;
  std::vector<TrainImage::Object> objects;

  explicit Picture(unsigned seed) {
    std::mt19937 random(seed);
    bgr.resize(static_cast<std::size_t>(3 * width * height));
    for (auto& x : bgr) x = static_cast<std::uint8_t>(110 + random() % 30);
    for (int k = 0; k < 2; ++k) {
      const int side = 30 + static_cast<int>(random() % 15), x0 = static_cast<int>(random() % 100),
                y0 = static_cast<int>(random() % 60);
      for (int y = y0; y < y0 + side; ++y)
        for (int x = x0; x < x0 + side; ++x)
          for (int c = 0; c < 3; ++c)
            bgr[static_cast<std::size_t>((y * width + x) * 3 + c)] = k == 0 ? 230 : 20;
      objects.push_back({{static_cast<float>(x0), static_cast<float>(y0), static_cast<float>(x0 + side - 1),
                          static_cast<float>(y0 + side - 1)},
                         k + 1});
    }
  }
  TrainImage image() const { return {"picture", width, height, bgr, objects}; }
};

inline TrainConfig quick() {
  TrainConfig config;
  config.dropout_scales_in_training = false;
  config.solver.iter_size = 1;
  config.solver.average_decay = 0.9;
  config.proposals = {200, 50, 0.7};
  config.roi.batch = 16;
  config.rpn.batch = 32;
  return config;
}

inline bool same(const HostTensors& a, const HostTensors& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [name, tensor] : a) {
    const auto other = b.find(name);
    if (other == b.end() || other->second.shape != tensor.shape ||
        std::memcmp(other->second.data.data(), tensor.data.data(), tensor.data.size() * sizeof(float)) != 0)
      return false;
  }
  return true;
}

// `steps` updates of `per_step` pictures each; returns the mean loss of each step.
inline std::vector<double> train(TrainNetwork& network, int first, int steps, int per_step = 1,
                                 double rate = 0.002) {
  std::vector<double> losses;
  for (int step = first; step < first + steps; ++step) {
    double sum = 0;
    for (int i = 0; i < per_step; ++i) {
      const Picture picture(static_cast<unsigned>((step * per_step + i) % 4));
      sum += network.accumulate(picture.image(), {step, i}).total();
    }
    network.update(rate, 0.9);
    losses.push_back(sum / per_step);
  }
  return losses;
}

// So that fc7's first unit is beyond f32.
inline void overflow_fc7(HostTensors& weights) {
  HostTensor& fc7 = weights.at("fc7.weight");
  std::fill_n(fc7.data.begin(), fc7.shape[1], 3e38f);
}

}  // namespace frcnn::small
