// Which part of a batch's map is an image's own, for every device.
#pragma once

#include <cstdint>

#include "box_math.h"

namespace frcnn {

struct OwnMap {
  int rows, columns;
};

// `sizes` is the pair that belongs to the image, of an op's input map_sizes; null: the whole map is its own.
// Never more than there is.
FRCNN_HD inline OwnMap own_map(const std::int32_t* sizes, int height, int width) {
  if (!sizes) return {height, width};
  const auto within = [](std::int32_t size, int most) { return size < 0 ? 0 : size > most ? most : size; };
  return {within(sizes[0], height), within(sizes[1], width)};
}

// The pairs in map_sizes i32 [N,4]: of the features' map, and of the RPN's.
FRCNN_HD inline const std::int32_t* feature_sizes(const std::int32_t* map_sizes, std::int64_t image) {
  return map_sizes ? map_sizes + image * 4 : nullptr;
}
FRCNN_HD inline const std::int32_t* rpn_sizes(const std::int32_t* map_sizes, std::int64_t image) {
  return map_sizes ? map_sizes + image * 4 + 2 : nullptr;
}

}  // namespace frcnn
