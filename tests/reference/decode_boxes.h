#pragma once

#include <span>

#include "reference/boxes.h"

namespace frcnn::reference {

// Rows of one image: rois [R,5], bbox_pred [R,4C], the image's scale and original size.
template <class T>
std::vector<T> decode_boxes(std::span<const float> rois, std::span<const float> bbox_pred, float scale,
                            float height, float width) {
  std::vector<T> out;
  const std::size_t rows = rois.size() / 5, columns = rows ? bbox_pred.size() / rows : 0;
  for (std::size_t r = 0; r < rows; ++r) {
    Box<T> from;
    for (std::size_t k = 0; k < 4; ++k) from[k] = static_cast<T>(rois[r * 5 + 1 + k]) / static_cast<T>(scale);
    for (std::size_t c = 0; c < columns; c += 4) {
      const float* d = &bbox_pred[r * columns + c];
      const Box<T> box = clip<T>(decode<T>(from, d[0], d[1], d[2], d[3]), height, width);
      out.insert(out.end(), box.begin(), box.end());
    }
  }
  return out;
}

}  // namespace frcnn::reference
