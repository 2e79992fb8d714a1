// The published networks with random weights: for measuring speed, which does not depend on what was learnt.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "detector/model.h"
#include "model_io/safetensors.h"

namespace frcnn {

inline const std::vector<std::string> random_architectures{"vgg16", "zf"};

// Faster R-CNN of PASCAL VOC on one of random_architectures, the same numbers on every machine. Hidden layers
// have He's variance, so that activations keep their size from layer to layer; scores and boxes begin as
// small as in training, so that proposals and detections abound. Throws Error(invalid_argument) for another
// name.
std::shared_ptr<const Model> random_model(const std::string& architecture);

// A model's weights as save_model() takes them, valid while the model lives.
std::vector<StoredTensor> stored_tensors(const Model& model);

}  // namespace frcnn
