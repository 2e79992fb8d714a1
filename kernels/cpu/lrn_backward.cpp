// LRN backward. With t = shift + factor * sum of squares and y = x t^-beta:
//   d_x = d_y t^-beta - 2 beta factor x * (sum over the window of r),  r = d_y x t^(-beta-1).
// A window that reaches a cell is one that the cell reaches, so both sums run over the same (odd) window. The
// first pass writes the first term and r (into the workspace), the second takes off the other term.
#include <algorithm>
#include <cmath>

#include "cpu/multiversion.h"
#include "cpu/parallel.h"
#include "kernels.h"

namespace frcnn::cpu {

namespace {

struct Geometry {
  std::int64_t height, width, channels, size;
  bool within;
  double factor, shift, beta;
};

// sum[c] = over the window around pixel (y, x) of f(value)[c]; `map` is one image.
template <class F>
FRCNN_INLINE void window_sum(const Geometry& g, const float* map, std::int64_t y, std::int64_t x, F f,
                             float* sum) {
  std::fill(sum, sum + g.channels, 0.0f);
  const std::int64_t reach = g.size / 2;
  if (!g.within) {
    const float* pixel = map + (y * g.width + x) * g.channels;
    for (std::int64_t c = 0; c < g.channels; ++c)
      for (std::int64_t k = std::max<std::int64_t>(c - reach, 0); k <= std::min(c + reach, g.channels - 1);
           ++k)
        sum[c] += f(pixel[k]);
    return;
  }
  for (std::int64_t sy = std::max<std::int64_t>(y - reach, 0); sy <= std::min(y + reach, g.height - 1);
       ++sy) {
    for (std::int64_t sx = std::max<std::int64_t>(x - reach, 0); sx <= std::min(x + reach, g.width - 1);
         ++sx) {
      const float* pixel = map + (sy * g.width + sx) * g.channels;
      for (std::int64_t c = 0; c < g.channels; ++c) sum[c] += f(pixel[c]);
    }
  }
}

FRCNN_MULTIVERSION void first_pass_row(const Geometry& g, const float* src, const float* d_dst,
                                       std::int64_t y, float* r, float* d_src, float* sum) {
  for (std::int64_t x = 0; x < g.width; ++x) {
    window_sum(
        g, src, y, x, [](float v) { return v * v; }, sum);
    const std::int64_t at = (y * g.width + x) * g.channels;
    for (std::int64_t c = 0; c < g.channels; ++c) {
      const double t = g.shift + g.factor * sum[c];
      const double power =
          g.beta == 0.75 ? 1.0 / __builtin_sqrt(t * __builtin_sqrt(t)) : std::pow(t, -g.beta);
      const double scaled = d_dst[at + c] * power;
      d_src[at + c] = static_cast<float>(scaled);
      r[at + c] = static_cast<float>(scaled * src[at + c] / t);
    }
  }
}

FRCNN_MULTIVERSION void second_pass_row(const Geometry& g, const float* src, const float* r, std::int64_t y,
                                        float* d_src, float* sum) {
  const auto common = static_cast<float>(2 * g.beta * g.factor);
  for (std::int64_t x = 0; x < g.width; ++x) {
    window_sum(
        g, r, y, x, [](float v) { return v; }, sum);
    const std::int64_t at = (y * g.width + x) * g.channels;
    for (std::int64_t c = 0; c < g.channels; ++c) d_src[at + c] -= common * src[at + c] * sum[c];
  }
}

}  // namespace

Prepared prepare(const LrnBackward& op, const KernelSpec& spec, const Settings& settings) {
  const Shape& s = spec.out[0].shape;
  const Lrn& lrn = op.lrn;
  const bool within = lrn.region == LrnRegion::within_channel;
  const double cells = within ? static_cast<double>(lrn.size) * lrn.size : lrn.size;
  const Geometry g{
      s[1],    s[2], s[3], lrn.size, within, lrn.alpha / cells, within ? 1.0 : static_cast<double>(lrn.k),
      lrn.beta};
  const std::int64_t elements = (s.elements() + 15) / 16 * 16, slice = (g.channels + 15) / 16 * 16;
  const std::int64_t rows = s[0] * s[1];
  const int threads =
      static_cast<int>(std::clamp<std::int64_t>(settings.threads, 1, std::max<std::int64_t>(rows, 1)));
  Prepared prepared;
  prepared.implementation = "plain";
  prepared.workspace_bytes = static_cast<std::size_t>(elements + slice * threads) * sizeof(float);
  prepared.run = [=](const KernelArgs& args) {
    const float *d_dst = args.in[0].as<const float>(), *src = args.in[1].as<const float>();
    float *d_src = args.out[0].as<float>(), *r = static_cast<float*>(args.workspace), *sums = r + elements;
    const std::int64_t image = g.height * g.width * g.channels;
    parallel_for(rows, threads, [&](std::int64_t begin, std::int64_t end, int chunk) {
      for (std::int64_t row = begin; row < end; ++row) {
        const std::int64_t at = row / g.height * image;
        first_pass_row(g, src + at, d_dst + at, row % g.height, r + at, d_src + at, sums + slice * chunk);
      }
    });
    parallel_for(rows, threads, [&](std::int64_t begin, std::int64_t end, int chunk) {
      for (std::int64_t row = begin; row < end; ++row) {
        const std::int64_t at = row / g.height * image;
        second_pass_row(g, src + at, r + at, row % g.height, d_src + at, sums + slice * chunk);
      }
    });
  };
  return prepared;
}

}  // namespace frcnn::cpu
