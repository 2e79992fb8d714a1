// Detectors on the emulated CUDA device: models, pictures, and what "the same detections" means.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "catch.h"
#include "cli/tiny_model.h"
#include "detector/detector.h"
#include "frcnn/error.h"
#include "tests/simt/detector_compare.h"
#include "tests/simt/fake_runtime.h"

namespace frcnn::simt_test {

inline std::shared_ptr<const Model> random_model(const ModelConfig& config = tiny::config()) {
  std::map<std::string, Weight> weights;
  for (const auto& [name, tensor] : tiny::tensors(config)) {
    Shape shape;
    for (const std::int64_t d : tensor.shape) shape.dim[static_cast<std::size_t>(shape.rank++)] = d;
    auto values = std::make_shared<std::vector<float>>(tensor.values);
    weights[name] = {{values->data(), shape, DType::f32}, values, {}};
  }
  return std::make_shared<const Model>(config, std::move(weights), "tiny");
}

// Of the smallest inputs that still go through every kernel, for what is done many times.
inline ModelConfig small_config() {
  ModelConfig config = tiny::config();
  config.short_side = 24;
  config.long_side = 32;
  config.rpn_min_size = 1;
  config.post_nms_top_n = 5;
  return config;
}
inline std::shared_ptr<const Model> small_model() { return random_model(small_config()); }

struct Picture {
  std::vector<std::uint8_t> bytes;
  ImageView view;
  Picture(int width, int height, unsigned seed) : bytes(static_cast<std::size_t>(width * height) * 3) {
    std::mt19937 random(seed);
    for (std::uint8_t& b : bytes) b = static_cast<std::uint8_t>(random());
    view = {bytes.data(), width, height};
  }
};

// A small arena, since every byte of the emulated device's memory is written when it is allocated.
inline DetectorOptions options(const std::string& device = "cuda:0", Precision precision = Precision::fp32) {
  DetectorOptions result;
  result.device = device;
  result.precision = precision;
  result.threads = 1;
  result.max_image_pixels = 1 << 18;
  return result;
}

// The message of the Error that f throws; fails the test if it throws none or one of another kind.
inline std::string message_of(const std::function<void()>& f, ErrorCode code) {
  try {
    f();
  } catch (const Error& e) {
    INFO(e.what());
    CHECK(static_cast<int>(e.code()) == static_cast<int>(code));
    return e.what();
  }
  FAIL_CHECK("no error");
  return "";
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace frcnn::simt_test
