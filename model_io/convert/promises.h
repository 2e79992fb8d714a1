// What a network's description promises about its weights, against the weights.
#pragma once

#include <string>

#include "detector/config.h"
#include "model_io/convert/caffe_net.h"
#include "model_io/convert/implied.h"

namespace frcnn {

// One line "\n  layer: ..." for each layer whose weights have other sizes than the network says; empty if all
// agree.
std::string broken_promises(const NetFacts& net, const TensorShapes& shapes);

// The same where the anchors of the configuration and the RPN's outputs differ in number.
std::string anchor_mismatch(const ModelConfig& config, const TensorShapes& shapes);

}  // namespace frcnn
