// A model's score on a data set, in the middle of its training.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "detector/model.h"
#include "runtime/device.h"
#include "training/voc_eval.h"

namespace frcnn {

// Detects in every image of the set and scores the model's classes. `go_on(done, total)` is asked before each
// image; where it answers false the result is nothing. Throws as read_image and Detector do, naming the
// image.
std::optional<VocScore> evaluate_model(
    std::shared_ptr<const Model> model, std::shared_ptr<Device> device, const VocDataset& dataset,
    VocMetric metric, const std::function<bool(std::size_t done, std::size_t total)>& go_on = {});

}  // namespace frcnn
