// From a graph that ends in losses to the gradients of its states.
#pragma once

#include <string>

#include "graph/graph.h"

namespace frcnn {

// The state that holds the gradient of the weight state `weight`.
std::string gradient_name(const std::string& weight);

// Appends the backward nodes of a graph not yet lowered: for every weight that is a state (a frozen layer's
// is Role::weight) the gradient of the sum of all losses, written to the state gradient_name(weight), or
// added to it when `accumulate`. Nothing is computed for layers that no gradient is asked of. Where several
// layers read a value their gradients are added, the last reader's first. Gradients stop at layers that
// choose (top k, suppression, sampling): proposals are constants of the head's losses. Throws
// Error(bad_model) naming a layer that a gradient reaches but that has no backward, and one whose weight and
// bias are not either both trained or both frozen.
void append_backward(Graph& graph, bool accumulate);

}  // namespace frcnn
