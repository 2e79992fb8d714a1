// The published backbones (SPEC section 2): their layers and widths.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "detector/config.h"

namespace frcnn {

struct PublishedBackbone {
  std::string name;                  // "VGG-16", "ZF"
  std::vector<int> groups;           // convolutions of each VGG group; empty: ZF
  std::vector<std::int64_t> widths;  // of the groups, or of ZF's five convolutions
  std::int64_t rpn = 0;              // width of the RPN's window
  int pooled = 0;                    // side of a pooled RoI
};
const std::vector<PublishedBackbone>& published_backbones();

// conv1_1, conv1_2 ...: 3x3, stride 1, pad 1, a 2x2 pool after each group but the last.
std::vector<BackboneLayer> vgg_backbone(std::span<const int> groups);

// conv1 ... conv5 with kernels 7, 5, 3, 3, 3; normalisation and pooling after the first two.
std::vector<BackboneLayer> zf_backbone();
inline constexpr std::array<std::int64_t, 5> zf_kernels{7, 5, 3, 3, 3};

}  // namespace frcnn
