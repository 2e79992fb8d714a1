// A loaded model: what it is and its weights.
#pragma once

#include <map>
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

}  // namespace frcnn
