// Named training recipes (docs/training.md).
#pragma once

#include <string>
#include <vector>

#include "detector/config.h"
#include "training/run_config.h"

namespace frcnn {

// "py-faster-rcnn", "paper-voc", "small-data", "bccd".
std::vector<std::string> preset_names();

// `arch` empty: the preset's own; "init": that of the model `init`. What depends on the architecture (which
// layers are frozen, how dropout is scaled) follows it. Throws Error(invalid_argument) that lists the names
// for an unknown preset or architecture.
RunConfig preset(const std::string& name, const std::string& arch = {}, const ModelConfig* init = nullptr);

// What the recipe multiplies in when nobody says otherwise: "fp32", or "auto", which is bf16 on a CPU that has it.
std::string preset_precision(const std::string& name);

}  // namespace frcnn
