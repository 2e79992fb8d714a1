// Source pixels as 8-bit B, G, R, for every device: integers only, so that all give the same levels.
//
// NV12 is what video decoders deliver: a plane of luma and a plane of interleaved U, V (Cb, Cr), one pair for
// 2x2 pixels, which all four take as it is. Levels are those of Recommendation ITU-R BT.601-7, section 2.5:
// luma 16..235, chroma 16..240 around 128, luma weights 0.299, 0.587, 0.114. Inverted and in steps of
// 1/65536, rounded half up:
//
//   R = 255/219 (Y-16)                                           + 255/112 (1-0.299) (V-128)
//   G = 255/219 (Y-16) - 255/112 (1-0.114) 0.114/0.587 (U-128)   - 255/112 (1-0.299) 0.299/0.587 (V-128)
//   B = 255/219 (Y-16) + 255/112 (1-0.114) (U-128)
//
// clamped to 0..255. Levels outside of the legal range are taken as they come.
#pragma once

#include <cstdint>

#include "box_math.h"
#include "graph/ops.h"
#include "graph/tensor.h"

namespace frcnn {

struct Bgr {
  int level[3];
};

FRCNN_HD inline int clamped_level(int in_65536ths) {
  const int level = (in_65536ths + 32768) >> 16;
  return level < 0 ? 0 : level > 255 ? 255 : level;
}

FRCNN_HD inline Bgr bgr_of_bt601(int y, int u, int v) {
  const int luma = 76309 * (y - 16);
  u -= 128;
  v -= 128;
  return {{clamped_level(luma + 132201 * u), clamped_level(luma - 25675 * u - 53279 * v),
           clamped_level(luma + 104597 * v)}};
}

// Pixel x of a row; `chroma` is the row of U, V pairs that belongs to it and unused by the other formats.
template <PixelFormat format>
FRCNN_HD inline Bgr bgr_at(const std::uint8_t* row, const std::uint8_t* chroma, std::int64_t x) {
  if constexpr (format == PixelFormat::nv12) {
    const std::uint8_t* const pair = chroma + x / 2 * 2;
    return bgr_of_bt601(row[x], pair[0], pair[1]);
  } else if constexpr (format == PixelFormat::rgb) {
    return {{row[3 * x + 2], row[3 * x + 1], row[3 * x]}};
  } else {
    return {{row[3 * x], row[3 * x + 1], row[3 * x + 2]}};
  }
}

// How the images of a Preprocess lie in its input.
struct Frames {
  std::int64_t count, height, width;
  std::int64_t row_bytes, image_bytes;  // from one row, and from one image, to the next
};

inline Frames frames_of(const Preprocess& op, const Shape& image) {
  if (image.rank == 4) return {image[0], image[1], image[2], image[2] * 3, image[1] * image[2] * 3};
  return {image[0], op.height, op.width, image[2], image[1] * image[2]};
}

}  // namespace frcnn
