// From an architecture's name to the detector that is trained: its configuration and the shape of every
// weight.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "detector/model.h"
#include "graph/tensor.h"
#include "training/run_config.h"

namespace frcnn {

inline constexpr const char* arch_of_init = "init";
std::vector<std::string> architecture_names();  // without arch_of_init

// An architecture's layers. Throws Error(invalid_argument) that lists the names for an unknown one.
std::vector<BackboneLayer> backbone_of(const std::string& arch);

// The convolutions before conv3_1 of a VGG, which the release never trains; none for another net.
std::vector<std::string> published_frozen_layers(const std::vector<BackboneLayer>& backbone);

struct LayerShape {
  std::string name;  // "conv1_1"
  Shape weight;      // OIHW or OI; the bias is [O]
};

struct NewDetector {
  ModelConfig config;
  std::vector<LayerShape> layers;  // with weights, in network order
};

// `classes` with the background first. `init` is the model that training starts from, or null. Where it is
// given, pixel_mean and dropout_test_scale are its own, because its weights were made for them. Throws
// Error(invalid_argument) naming the architecture, width or key that makes no sense.
NewDetector new_detector(const ArchitectureConfig& architecture, const std::vector<std::string>& classes,
                         const Model* init);

}  // namespace frcnn
