// Tensors on their way from a source to the model file: their order, types and finiteness.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "detector/config.h"
#include "model_io/convert/source.h"
#include "model_io/safetensors.h"

namespace frcnn {

// Names of the model's tensors, network input first, weight before bias. fc6 and fc7 also for a backbone.
std::vector<std::string> network_order(const ModelConfig& config);

// A tensor in the type in which it is stored, and what keeps its data alive.
struct ReadyTensor {
  StoredTensor stored;
  std::shared_ptr<const void> owner;
};

// Throws Error(numeric) naming the tensor and the index of the first NaN or infinity (unless allowed), or of
// the first number too large for `dtype`.
ReadyTensor make_ready(const SourceTensor& tensor, DType dtype, bool allow_nonfinite);

}  // namespace frcnn
