// A loaded model: what it is and its weights.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "detector/config.h"
#include "runtime/weights.h"

namespace frcnn {

// Immutable; shared between detectors and threads. model_io/model_file.h makes one from a file.
struct Model {
  Model(ModelConfig c, std::map<std::string, Weight> tensors, std::string source)
      : config(std::move(c)), weights(std::move(tensors), std::move(source)) {}
  ModelConfig config;
  Weights weights;
};

// A model with the same weights (the tensors are shared, packed copies are not) and another configuration.
inline std::shared_ptr<const Model> with_config(const Model& model, ModelConfig config) {
  return std::make_shared<const Model>(std::move(config), model.weights.all(), model.weights.source());
}

}  // namespace frcnn
