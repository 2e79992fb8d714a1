// The file that `detect --dump` and `run` write and `diff` reads: every named value of a network, in network
// order.
#pragma once

#include <string>

#include "detector/detector.h"

namespace frcnn {

// safetensors, f32; metadata "order" is the JSON array of the names in network order (readers sort them
// otherwise). `detections` [n,6] = class, score, x1, y1, x2, y2 in original pixels comes last; a backbone has
// none.
void write_dump(const std::string& path, const Model& model, const DetectResult& result);

}  // namespace frcnn
