// Local response normalisation, both kinds. Sums of squares and the power are computed in one pass over
// pieces that stay in the first-level cache; the maps themselves are read and written once.
#include <algorithm>
#include <cmath>
#include <type_traits>

#include "cpu/multiversion.h"
#include "cpu/parallel.h"
#include "cpu/storage.h"
#include "kernels.h"

namespace frcnn::cpu {

namespace {

struct Geometry {
  std::int64_t height, width, channels;
  std::int64_t before, size;   // the window starts `before` cells earlier and has `size` of them
  std::int64_t tile;           // columns computed at a time, within_channel
  double factor, shift, beta;  // y = x (shift + factor * sum)^-beta
};

// dst = src * (shift + factor * sum)^-beta, in double from the float sums on: it then adds next to nothing to
// the rounding of the convolutions, on which the order of proposals with close scores depends. What is stored
// in bf16 anyway stays in float. t^(3/4) = sqrt(t sqrt(t)) takes two square roots, a quarter of a power
// function's time.
template <class T>
FRCNN_INLINE void normalise(const Geometry& g, const T* src, const float* sum, T* dst, std::int64_t n) {
  using Real = std::conditional_t<std::is_same_v<T, float>, double, float>;
  const auto shift = static_cast<Real>(g.shift), factor = static_cast<Real>(g.factor);
  if (g.beta == 0.75) {
    for (std::int64_t i = 0; i < n; ++i) {
      const Real t = shift + factor * sum[i], root = std::sqrt(t * std::sqrt(t));
      dst[i] = from_float<T>(static_cast<float>(to_float(src[i]) / root));
    }
  } else {
    const auto power = static_cast<Real>(-g.beta);
    for (std::int64_t i = 0; i < n; ++i)
      dst[i] = from_float<T>(static_cast<float>(to_float(src[i]) * std::pow(shift + factor * sum[i], power)));
  }
}

// Row y of one image. Piece by piece: the squares summed down the window's rows into `sums`, with zeros where
// the window leaves the map, then along the window's columns into `window`.
template <class T>
FRCNN_INLINE void within_channel_row_of(const Geometry& g, const T* image, std::int64_t y, T* dst,
                                        float* workspace) {
  const std::int64_t y0 = std::max<std::int64_t>(y - g.before, 0),
                     y1 = std::min(y - g.before + g.size, g.height);
  float* sums = workspace;
  float* window = workspace + (g.tile + g.size - 1) * g.channels;
  for (std::int64_t x = 0; x < g.width; x += g.tile) {
    const std::int64_t columns = std::min(g.tile, g.width - x), n = columns * g.channels;
    const std::int64_t left = x - g.before, span = columns + g.size - 1;
    const std::int64_t from = std::clamp<std::int64_t>(-left, 0, span);  // in columns of `sums`
    const std::int64_t to = std::clamp<std::int64_t>(g.width - left, from, span);
    std::fill(sums, sums + span * g.channels, 0.0f);
    for (std::int64_t sy = y0; sy < y1; ++sy) {
      const T* src = image + (sy * g.width + left + from) * g.channels;
      float* into = sums + from * g.channels;
      for (std::int64_t i = 0; i < (to - from) * g.channels; ++i)
        into[i] += to_float(src[i]) * to_float(src[i]);
    }
    if (g.size == 3) {
      const float *a = sums, *b = sums + g.channels, *c = sums + 2 * g.channels;
      for (std::int64_t i = 0; i < n; ++i) window[i] = a[i] + b[i] + c[i];
    } else {
      std::copy(sums, sums + n, window);
      for (std::int64_t k = 1; k < g.size; ++k) {
        for (std::int64_t i = 0; i < n; ++i) window[i] += sums[k * g.channels + i];
      }
    }
    const std::int64_t at = (y * g.width + x) * g.channels;
    normalise(g, image + at, window, dst + x * g.channels, n);
  }
}

// `pixels` pixels. The squares lie between zeros, so that the window never leaves them.
template <class T>
FRCNN_INLINE void across_channels_pixels_of(const Geometry& g, const T* src, T* dst, std::int64_t pixels,
                                            float* workspace) {
  const std::int64_t padded = g.channels + g.size - 1;
  float* window = workspace + padded;
  std::fill(workspace, workspace + padded, 0.0f);
  for (std::int64_t p = 0; p < pixels; ++p, src += g.channels, dst += g.channels) {
    float* squares = workspace + g.before;
    for (std::int64_t c = 0; c < g.channels; ++c) squares[c] = to_float(src[c]) * to_float(src[c]);
    for (std::int64_t c = 0; c < g.channels; ++c) window[c] = workspace[c];
    for (std::int64_t k = 1; k < g.size; ++k) {
      for (std::int64_t c = 0; c < g.channels; ++c) window[c] += workspace[k + c];
    }
    normalise(g, src, window, dst, g.channels);
  }
}

FRCNN_MULTIVERSION void within_channel_row(const Geometry& g, const float* image, std::int64_t y, float* dst,
                                           float* workspace) {
  within_channel_row_of(g, image, y, dst, workspace);
}
FRCNN_MULTIVERSION void within_channel_row(const Geometry& g, const Bf16* image, std::int64_t y, Bf16* dst,
                                           float* workspace) {
  within_channel_row_of(g, image, y, dst, workspace);
}
FRCNN_MULTIVERSION void across_channels_pixels(const Geometry& g, const float* src, float* dst,
                                               std::int64_t pixels, float* workspace) {
  across_channels_pixels_of(g, src, dst, pixels, workspace);
}
FRCNN_MULTIVERSION void across_channels_pixels(const Geometry& g, const Bf16* src, Bf16* dst,
                                               std::int64_t pixels, float* workspace) {
  across_channels_pixels_of(g, src, dst, pixels, workspace);
}

}  // namespace

Prepared prepare(const Lrn& op, const KernelSpec& spec, const Settings& settings) {
  const Shape& s = spec.in[0].shape;
  const bool within = op.region == LrnRegion::within_channel;
  Geometry g{};
  g.height = s[1];
  g.width = s[2];
  g.channels = s[3];
  g.size = op.size;
  g.before = (op.size - 1) / 2;
  g.tile = std::clamp<std::int64_t>(2048 / std::max<std::int64_t>(g.channels, 1), 16,
                                    std::max<std::int64_t>(g.width, 16));
  const double cells = within ? static_cast<double>(op.size) * op.size : op.size;
  g.factor = op.alpha / cells;
  g.shift = within ? 1.0 : op.k;
  g.beta = op.beta;

  const std::int64_t rows = within ? s[0] * g.height : s[0] * g.height * g.width;
  const int threads =
      static_cast<int>(std::clamp<std::int64_t>(settings.threads, 1, std::max<std::int64_t>(rows, 1)));
  const std::int64_t columns = within ? g.tile : 1, halo = (within ? g.channels : 1) * (g.size - 1);
  const std::int64_t slice = (2 * columns * g.channels + halo + 15) / 16 * 16;
  const DType dtype = one_storage(spec.in[0].dtype, spec.out[0].dtype, "lrn");
  return with_storage(dtype, "lrn", [&](auto stored) {
    using T = typename decltype(stored)::type;
    Prepared prepared;
    prepared.implementation = "plain";
    prepared.workspace_bytes = static_cast<std::size_t>(slice * threads) * sizeof(float);
    prepared.run = [=](const KernelArgs& args) {
      const T* src = args.in[0].as<const T>();
      T* dst = args.out[0].as<T>();
      float* workspace = static_cast<float*>(args.workspace);
      parallel_for(rows, threads, [&](std::int64_t begin, std::int64_t end, int chunk) {
        float* own = workspace + slice * chunk;
        if (!within) {
          across_channels_pixels(g, src + begin * g.channels, dst + begin * g.channels, end - begin, own);
          return;
        }
        const std::int64_t row = g.width * g.channels;
        for (std::int64_t r = begin; r < end; ++r) {
          within_channel_row(g, src + r / g.height * g.height * row, r % g.height, dst + r * row, own);
        }
      });
    };
    return prepared;
  });
}

}  // namespace frcnn::cpu
