// A model's score on a data set, in the middle of its training.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "detector/model.h"
#include "runtime/device.h"
#include "training/train_network.h"
#include "training/voc_eval.h"

namespace frcnn {

struct EvaluateOptions {
  VocMetric metric = VocMetric::eleven_point;
  // Asked before each image; where it answers false the result is nothing.
  std::function<bool(std::size_t done, std::size_t total)> go_on;
  // Told of each image that cannot be read and is left out, its objects too. Without it such an image is an
  // error.
  std::function<void(const std::string& message)> skipped;
};

// Detects in every image of the set and scores the model's classes. Throws as read_image and Detector do,
// naming the image.
std::optional<VocScore> evaluate_model(std::shared_ptr<const Model> model, std::shared_ptr<Device> device,
                                       const VocDataset& dataset, const EvaluateOptions& options);

// Memory that evaluate_model() takes of the device while it runs, about: the detector's arena and packed
// weights.
std::size_t evaluation_bytes(const ModelConfig& model, const HostTensors& weights,
                             std::shared_ptr<Device> device, const VocDataset& dataset);

}  // namespace frcnn
