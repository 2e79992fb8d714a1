// Mean subtraction and bilinear resize, element by element as SPEC section 1 words it.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "graph/ops.h"
#include "graph/tensor.h"

namespace frcnn::reference {

// One 8-bit level from its value in 65536ths, rounded half up.
inline std::uint8_t level_of(long long in_65536ths) {
  return static_cast<std::uint8_t>(
      std::clamp(std::floor(static_cast<double>(in_65536ths) / 65536.0 + 0.5), 0.0, 255.0));
}

// An image among `pixels` as packed BGR [H,W,3]: channels turned round, or luma and chroma turned into BGR with
// the coefficients of BT.601's limited range in steps of 1/65536.
inline std::vector<std::uint8_t> to_bgr(const SourceImage& image, std::span<const std::uint8_t> pixels) {
  const auto byte = [&](std::uint64_t plane, std::int64_t at) {
    return static_cast<long long>(pixels[static_cast<std::size_t>(static_cast<std::int64_t>(plane) + at)]);
  };
  std::vector<std::uint8_t> bgr;
  for (std::int64_t y = 0; y < image.height; ++y)
    for (std::int64_t x = 0; x < image.width; ++x)
      for (const int c : {0, 1, 2}) {
        if (image.format != PixelFormat::nv12) {
          const int from = image.format == PixelFormat::rgb ? 2 - c : c;
          bgr.push_back(static_cast<std::uint8_t>(byte(image.data, y * image.row_bytes + 3 * x + from)));
          continue;
        }
        const std::int64_t pair = y / 2 * image.chroma_row_bytes + x / 2 * 2;
        const auto luma = 76309 * (byte(image.data, y * image.row_bytes + x) - 16);
        const auto u = byte(image.chroma, pair) - 128, v = byte(image.chroma, pair + 1) - 128;
        bgr.push_back(level_of(c == 0   ? luma + 132201 * u
                               : c == 1 ? luma - 25675 * u - 53279 * v
                                        : luma + 104597 * v));
      }
  return bgr;
}

// image u8 [N,H,W,3] packed BGR, out [N,h,w,3], inv = 1 / scale. T is the precision of the interpolation: float gives the specified bits;
// double (with the float32 weights of the rule) the exact value of the same formula.
template <class T>
std::vector<T> preprocess(double inv, const std::array<double, 3>& mean, const Shape& s,
                          std::span<const std::uint8_t> image, const Shape& d) {
  const auto pixel = [&](std::int64_t n, std::int64_t y, std::int64_t x, std::int64_t c) {
    const std::uint8_t level = image[static_cast<std::size_t>(((n * s[1] + y) * s[2] + x) * 3 + c)];
    return static_cast<T>(static_cast<float>(level - mean[static_cast<std::size_t>(c)]));
  };
  // volatile keeps the compiler from fusing what must be rounded separately.
  const auto mix = [](T a, T b, float w) {
    const float rest = 1.0f - w;
    volatile T left = a * static_cast<T>(rest);
    volatile T right = b * static_cast<T>(w);
    return static_cast<T>(left + right);
  };
  std::vector<T> out;
  for (std::int64_t n = 0; n < d[0]; ++n)
    for (std::int64_t y = 0; y < d[1]; ++y) {
      const float fy = static_cast<float>((y + 0.5) * inv - 0.5);
      const auto top = static_cast<std::int64_t>(std::floor(fy));
      const float wy = fy - static_cast<float>(top);
      const std::int64_t y0 = std::clamp<std::int64_t>(top, 0, s[1] - 1);
      const std::int64_t y1 = std::clamp<std::int64_t>(top + 1, 0, s[1] - 1);
      for (std::int64_t x = 0; x < d[2]; ++x) {
        const float fx = static_cast<float>((x + 0.5) * inv - 0.5);
        auto x0 = static_cast<std::int64_t>(std::floor(fx));
        float wx = fx - static_cast<float>(x0);
        if (x0 < 0) x0 = 0, wx = 0;
        if (x0 >= s[2] - 1) x0 = s[2] - 1, wx = 0;
        const std::int64_t x1 = std::min(x0 + 1, s[2] - 1);
        for (std::int64_t c = 0; c < 3; ++c) {
          const T above = mix(pixel(n, y0, x0, c), pixel(n, y0, x1, c), wx);
          const T below = mix(pixel(n, y1, x0, c), pixel(n, y1, x1, c), wx);
          out.push_back(mix(above, below, wy));
        }
      }
    }
  return out;
}

}  // namespace frcnn::reference
