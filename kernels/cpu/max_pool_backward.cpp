// Max pooling that saves where its maxima were, and its backward. There a row of the source is one thread's:
// it gathers from the windows that reach it, in order, so no sum depends on threads.
#include <algorithm>
#include <cfloat>

#include "cpu/multiversion.h"
#include "cpu/parallel.h"
#include "cpu/save_argmax.h"
#include "kernels.h"

namespace frcnn::cpu {

namespace {

struct Geometry {
  std::int64_t height, width, channels;  // of the source
  std::int64_t out_height, out_width;
  std::int64_t kernel, stride, pad;
};

FRCNN_INLINE void take_larger(const float* from, std::uint8_t place, float* best, std::uint8_t* argmax,
                              std::int64_t n) {
  for (std::int64_t c = 0; c < n; ++c) {
    argmax[c] = from[c] > best[c] ? place : argmax[c];
    best[c] = from[c] > best[c] ? from[c] : best[c];
  }
}

// Row y of one image's result. Where nothing is larger than -FLT_MAX (a window of NaNs) the place is the
// first one of the window.
FRCNN_MULTIVERSION void pool_row(const Geometry& g, const float* src, std::int64_t y, float* dst,
                                 std::uint8_t* argmax) {
  const std::int64_t top = y * g.stride - g.pad;
  const std::int64_t y0 = std::max<std::int64_t>(top, 0), y1 = std::min(top + g.kernel, g.height);
  for (std::int64_t x = 0; x < g.out_width; ++x, dst += g.channels, argmax += g.channels) {
    const std::int64_t left = x * g.stride - g.pad;
    const std::int64_t x0 = std::max<std::int64_t>(left, 0), x1 = std::min(left + g.kernel, g.width);
    std::fill(dst, dst + g.channels, -FLT_MAX);
    std::fill(argmax, argmax + g.channels, static_cast<std::uint8_t>((y0 - top) * g.kernel + (x0 - left)));
    for (std::int64_t sy = y0; sy < y1; ++sy)
      for (std::int64_t sx = x0; sx < x1; ++sx)
        take_larger(src + (sy * g.width + sx) * g.channels,
                    static_cast<std::uint8_t>((sy - top) * g.kernel + (sx - left)), dst, argmax, g.channels);
  }
}

FRCNN_INLINE void gather(const float* d_dst, const std::uint8_t* argmax, unsigned place, float* d_src,
                         std::int64_t n) {
  for (std::int64_t c = 0; c < n; ++c) d_src[c] += argmax[c] == place ? d_dst[c] : 0.0f;
}

// Row y of one image's gradient; d_dst and argmax are the image's first elements.
FRCNN_MULTIVERSION void backward_row(const Geometry& g, const float* d_dst, const std::uint8_t* argmax,
                                     std::int64_t y, float* d_src) {
  std::fill(d_src, d_src + g.width * g.channels, 0.0f);
  const std::int64_t reach =
      y + g.pad - g.kernel + 1;  // the first window row that reaches y begins here or later
  const std::int64_t first = reach <= 0 ? 0 : (reach + g.stride - 1) / g.stride;
  const std::int64_t last = std::min((y + g.pad) / g.stride, g.out_height - 1);
  for (std::int64_t oy = first; oy <= last; ++oy) {
    const std::int64_t ky = y + g.pad - oy * g.stride;
    for (std::int64_t ox = 0; ox < g.out_width; ++ox) {
      const std::int64_t at = (oy * g.out_width + ox) * g.channels;
      const std::int64_t left = ox * g.stride - g.pad;
      for (std::int64_t kx = std::max<std::int64_t>(0, -left); kx < std::min(g.kernel, g.width - left); ++kx)
        gather(d_dst + at, argmax + at, static_cast<unsigned>(ky * g.kernel + kx),
               d_src + (left + kx) * g.channels, g.channels);
    }
  }
}

}  // namespace

Prepared max_pool_with_argmax(const MaxPool& op, const KernelSpec& spec, const Settings& settings) {
  const Shape &s = spec.in[0].shape, &d = spec.out[0].shape;
  const Geometry g{s[1], s[2], s[3], d[1], d[2], op.kernel, op.stride, op.pad};
  Prepared prepared;
  prepared.implementation = "plain";
  prepared.run = [g, rows = d[0] * d[1], threads = settings.threads](const KernelArgs& args) {
    const float* src = args.in[0].as<const float>();
    float* dst = args.out[0].as<float>();
    auto* argmax = args.out[1].as<std::uint8_t>();
    parallel_for(rows, threads, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        const std::int64_t at = row * g.out_width * g.channels;
        pool_row(g, src + row / g.out_height * g.height * g.width * g.channels, row % g.out_height, dst + at,
                 argmax + at);
      }
    });
  };
  return prepared;
}

Prepared prepare(const MaxPoolBackward& op, const KernelSpec& spec, const Settings& settings) {
  const Shape &d = spec.in[0].shape, &s = spec.out[0].shape;
  const Geometry g{s[1], s[2], s[3], d[1], d[2], op.pool.kernel, op.pool.stride, op.pool.pad};
  Prepared prepared;
  prepared.implementation = "plain";
  prepared.run = [g, rows = s[0] * s[1], threads = settings.threads](const KernelArgs& args) {
    const float* d_dst = args.in[0].as<const float>();
    const auto* argmax = args.in[1].as<const std::uint8_t>();
    float* d_src = args.out[0].as<float>();
    parallel_for(rows, threads, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        const std::int64_t image = row / g.height * g.out_height * g.out_width * g.channels;
        backward_row(g, d_dst + image, argmax + image, row % g.height, d_src + row * g.width * g.channels);
      }
    });
  };
  return prepared;
}

}  // namespace frcnn::cpu
