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

// Pixel x of row y of an image whose pixels are found at `base` + what its record says.
template <PixelFormat format>
FRCNN_HD inline Bgr bgr_of(const SourceImage& image, std::uint64_t base, std::int64_t y, std::int64_t x) {
  const auto at = [&](std::uint64_t plane, std::int64_t row, std::int64_t step) {
    return reinterpret_cast<const std::uint8_t*>(base + plane + static_cast<std::uint64_t>(row * step));
  };
  return bgr_at<format>(at(image.data, y, image.row_bytes), at(image.chroma, y / 2, image.chroma_row_bytes),
                        x);
}

}  // namespace frcnn
