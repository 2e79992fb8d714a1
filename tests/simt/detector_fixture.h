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
#include "tests/simt/detector_compare.h"
#include "tests/simt/fake_runtime.h"
#include "tiny_detector.h"

namespace frcnn::simt_test {

using test::message_of;
using test::Picture;
using test::tiny_model;

// Of the smallest inputs that still go through every kernel, for what is done many times.
inline ModelConfig small_config() {
  ModelConfig config = tiny::config();
  config.short_side = 24;
  config.long_side = 32;
  config.rpn_min_size = 1;
  config.post_nms_top_n = 5;
  return config;
}
inline std::shared_ptr<const Model> small_model() { return test::tiny_model(small_config()); }

// A small arena, since every byte of the emulated device's memory is written when it is allocated.
inline DetectorOptions options(const std::string& device = "cuda:0", Precision precision = Precision::fp32) {
  DetectorOptions result;
  result.device = device;
  result.precision = precision;
  result.threads = 1;
  result.max_image_pixels = 1 << 18;
  return result;
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace frcnn::simt_test
