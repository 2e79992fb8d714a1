// The change of variables of UnitsConfig and of the box targets' scale: the same function in published units
// (what is saved) and in training units (what SGD moves).
#pragma once

#include "training/train_network.h"
#include "training/training_graph.h"

namespace frcnn {

// `published` as it is trained: LRN's alpha for maps in hidden units, the first layer's padding moved into
// the input's border when the input has an offset. Throws Error(invalid_argument) for hidden units without an
// LRN.
TrainingModel in_training_units(const ModelConfig& published, const TrainConfig& config);

// All weights of a model, in place. With scales that are powers of two, and box standard deviations aside,
// both are exact but for the first layer's bias. Missing tensors: Error(bad_model).
void to_training_units(const ModelConfig& published, const TrainConfig& config, HostTensors& weights);
void to_published_units(const ModelConfig& published, const TrainConfig& config, HostTensors& weights);

}  // namespace frcnn
