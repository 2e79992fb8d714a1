// Anchor boxes around cell (0,0), ratio-major, scale-minor (SPEC section 4).
#pragma once

#include <array>
#include <vector>

#include "detector/config.h"

namespace frcnn {

std::vector<std::array<float, 4>> base_anchors(const ModelConfig& config);

}  // namespace frcnn
