// Detectors of the tiny networks, pictures for them, and what their errors say.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "catch.h"
#include "cli/tiny_model.h"
#include "detector/detector.h"
#include "frcnn/error.h"

namespace frcnn::test {

inline std::shared_ptr<const Model> model_of(const ModelConfig& config, const tiny::Tensors& tensors) {
  std::map<std::string, Weight> weights;
  for (const auto& [name, tensor] : tensors) {
    Shape shape;
    for (const std::int64_t d : tensor.shape) shape.dim[static_cast<std::size_t>(shape.rank++)] = d;
    auto values = std::make_shared<std::vector<float>>(tensor.values);
    weights[name] = {{values->data(), shape, DType::f32}, values, {}};
  }
  return std::make_shared<const Model>(config, std::move(weights), "tiny");
}

inline std::shared_ptr<const Model> tiny_model(const ModelConfig& config = tiny::config()) {
  return model_of(config, tiny::tensors(config));
}

// Of random levels.
struct Picture {
  std::vector<std::uint8_t> bytes;
  ImageView view;
  Picture(int width, int height, unsigned seed) : bytes(static_cast<std::size_t>(width * height) * 3) {
    std::mt19937 random(seed);
    for (std::uint8_t& b : bytes) b = static_cast<std::uint8_t>(random());
    view = {bytes.data(), width, height};
  }
};

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

}  // namespace frcnn::test
