// The weights that training starts from: those of a model where they fit, fresh ones elsewhere.
#pragma once

#include <string>
#include <vector>

#include "training/architecture.h"
#include "training/train_network.h"

namespace frcnn {

struct LayerOrigin {
  enum class From : std::uint8_t {
    model,      // taken
    classes,    // rows of the classes that the model knows are taken, by name; the others are fresh
    fresh,      // the model has no such layer, or there is no model
    misfit,     // the model's has another shape: freshly initialised
    strangers,  // the model knows none of the classes: freshly initialised
    unused,     // only the model has it
  };
  std::string name;
  From from = From::fresh;
  Shape shape, model_shape;  // of the weight; rank 0 where there is none
  std::int64_t known_classes = 0;            // `classes`: without the background
  std::vector<std::string> fresh_classes{};  // `classes`: those that the model does not know
};

struct InitialWeights {
  HostTensors tensors;               // "LAYER.weight", "LAYER.bias", in published units
  std::vector<LayerOrigin> origins;  // in network order, then what is unused
};

// cls_score and bbox_pred have rows of classes. They are taken by the class's name, looked up exactly, then
// without regard to case; the background's row is the background's. A class that the model does not know
// starts fresh, and so does the layer where it knows none.
//
// Fresh weights are Gaussian by config.filler and the *_filler_std, in training units; biases 0. They depend
// on config.seed and the layer's place in the network alone, not on what else is taken. Throws
// Error(bad_model) when nothing of `init` fits or one of its weights is not finite, Error(invalid_argument)
// when a layer is to be frozen that is fresh or not there.
InitialWeights initial_weights(const NewDetector& detector, const TrainConfig& config, const Model* init);

}  // namespace frcnn
