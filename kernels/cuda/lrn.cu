// Local response normalisation, both kinds: y = x (shift + factor * sum of squares over a window)^-beta. The
// window is size x size cells of one channel, or `size` channels of one cell. One thread makes one value and
// reads its whole window; neighbours in a warp are neighbours in channels. The window's reads hit the cache,
// so memory bounds it up to size 5 or so.
//
// Backward, with t = shift + factor * sum of squares: d_src = d_dst t^-beta - 2 beta factor src * (sum over
// the window of r), r = d_dst src t^(-beta-1). A window that reaches a cell is one that the cell reaches (its
// size is odd), so the second sum runs over the cell's own window. One pass writes the first term and r, the
// other takes off the second term, both in the CPU's order.
#include "box_math.h"
#include "f32_only.h"
#include "launch.h"
#include "storage.h"

namespace frcnn::cuda {
namespace {

struct Geometry {
  int height, width, channels;
  int size;
  double factor, shift, beta;
};

// x t^-beta in double, as on the CPU and for its reason: the layer adds next to nothing to the rounding of
// the convolutions. The power 3/4 is x / sqrt(t sqrt(t)), in correctly rounded steps.
__device__ float normalised(float x, float sum, const Geometry& g) {
  const double t = __dadd_rn(g.shift, __dmul_rn(g.factor, sum));
  if (g.beta == 0.75) return static_cast<float>(__ddiv_rn(x, __dsqrt_rn(__dmul_rn(t, __dsqrt_rn(t)))));
  return static_cast<float>(__dmul_rn(x, pow(t, -g.beta)));
}

template <class T>
__global__ void __launch_bounds__(256, 6)
    lrn_within_kernel(const T* src, T* dst, Geometry g, std::int64_t n) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
    const std::int64_t cell = i / g.channels;
    const int x = static_cast<int>(cell % g.width), y = static_cast<int>(cell / g.width % g.height);
    const int before = (g.size - 1) / 2;
    const int y0 = max(y - before, 0), y1 = min(y - before + g.size, g.height);
    const int x0 = max(x - before, 0), x1 = min(x - before + g.size, g.width);
    float sum = 0.0f;
    for (int sx = x0; sx < x1; ++sx) {
      float column = 0.0f;  // rows first, then columns: the CPU's order of sums
      for (int sy = y0; sy < y1; ++sy) {
        const float v = to_float(src[i + (std::int64_t{sy - y} * g.width + (sx - x)) * g.channels]);
        column = ieee::add(column, ieee::mul(v, v));
      }
      sum = ieee::add(sum, column);
    }
    dst[i] = from_float<T>(normalised(to_float(src[i]), sum, g));
  }
}

template <class T>
__global__ void __launch_bounds__(256) lrn_across_kernel(const T* src, T* dst, Geometry g, std::int64_t n) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
    const int c = static_cast<int>(i % g.channels), before = (g.size - 1) / 2;
    const int c0 = max(c - before, 0), c1 = min(c - before + g.size, g.channels);
    float sum = 0.0f;
    for (int k = c0; k < c1; ++k) {
      const float v = to_float(src[i + (k - c)]);
      sum = ieee::add(sum, ieee::mul(v, v));
    }
    dst[i] = from_float<T>(normalised(to_float(src[i]), sum, g));
  }
}

// f(index) of every element of the window around element i, by rows, columns and channels.
template <class F>
__device__ __forceinline__ void for_window(const Geometry& g, bool within, std::int64_t i, const F& f) {
  const int reach = g.size / 2, c = static_cast<int>(i % g.channels);
  if (!within) {
    for (int k = max(c - reach, 0); k <= min(c + reach, g.channels - 1); ++k) f(i + (k - c));
    return;
  }
  const std::int64_t cell = i / g.channels;
  const int x = static_cast<int>(cell % g.width), y = static_cast<int>(cell / g.width % g.height);
  for (int sy = max(y - reach, 0); sy <= min(y + reach, g.height - 1); ++sy)
    for (int sx = max(x - reach, 0); sx <= min(x + reach, g.width - 1); ++sx)
      f(i + (std::int64_t{sy - y} * g.width + (sx - x)) * g.channels);
}

__global__ void __launch_bounds__(256)
    lrn_scale_gradient_kernel(const float* d_dst, const float* src, float* r, float* d_src, Geometry g,
                              bool within, std::int64_t n) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
    float sum = 0.0f;
    for_window(g, within, i, [&](std::int64_t k) { sum = ieee::add(sum, ieee::mul(src[k], src[k])); });
    const double t = __dadd_rn(g.shift, __dmul_rn(g.factor, sum));
    const double power =
        g.beta == 0.75 ? __ddiv_rn(1.0, __dsqrt_rn(__dmul_rn(t, __dsqrt_rn(t)))) : pow(t, -g.beta);
    const double scaled = __dmul_rn(d_dst[i], power);
    d_src[i] = static_cast<float>(scaled);
    r[i] = static_cast<float>(__ddiv_rn(__dmul_rn(scaled, src[i]), t));
  }
}

__global__ void __launch_bounds__(256)
    lrn_window_gradient_kernel(const float* src, const float* r, float* d_src, Geometry g, bool within,
                               std::int64_t n) {
  const float common = static_cast<float>(__dmul_rn(__dmul_rn(2.0, g.beta), g.factor));
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
    float sum = 0.0f;
    for_window(g, within, i, [&](std::int64_t k) { sum = ieee::add(sum, r[k]); });
    d_src[i] = ieee::sub(d_src[i], ieee::mul(ieee::mul(common, src[i]), sum));
  }
}

Geometry geometry_of(const Lrn& op, const Shape& s) {
  const bool within = op.region == LrnRegion::within_channel;
  const double cells = within ? static_cast<double>(op.size) * op.size : op.size;
  return {static_cast<int>(s[1]),
          static_cast<int>(s[2]),
          static_cast<int>(s[3]),
          op.size,
          op.alpha / cells,
          within ? 1.0 : op.k,
          op.beta};
}

}  // namespace

Prepared prepare(const Lrn& op, const KernelSpec& spec, const Settings&) {
  const Shape& s = spec.in[0].shape;
  const bool within = op.region == LrnRegion::within_channel;
  const Geometry g = geometry_of(op, s);
  Prepared prepared;
  const DType storage = one_storage(spec.in[0].dtype, spec.out[0].dtype, "lrn");
  with_storage(storage, "lrn", [&](auto stored) {
    using T = typename decltype(stored)::type;
    const auto kernel = within ? lrn_within_kernel<T> : lrn_across_kernel<T>;
    prepared.implementation = within ? "lrn:within" : "lrn:across";
    prepared.run = [g, kernel, n = s.elements()](const KernelArgs& args) {
      if (n == 0) return;
      launch(kernel, blocks_for(n, 256), dim3(256), 0, static_cast<cudaStream_t>(args.stream),
             args.in[0].template as<const T>(), args.out[0].template as<T>(), g, n);
    };
  });
  return prepared;
}

Prepared prepare(const LrnBackward& op, const KernelSpec& spec, const Settings&) {
  require_f32(spec, "lrn_backward");
  const Shape& s = spec.out[0].shape;
  Prepared prepared;
  prepared.implementation = "lrn_backward";
  prepared.workspace_bytes = spec.out[0].bytes();
  prepared.run = [g = geometry_of(op.lrn, s), within = op.lrn.region == LrnRegion::within_channel,
                  n = s.elements()](const KernelArgs& args) {
    if (n == 0) return;
    const auto stream = static_cast<cudaStream_t>(args.stream);
    const auto *d_dst = args.in[0].as<const float>(), *src = args.in[1].as<const float>();
    auto *r = static_cast<float*>(args.workspace), *d_src = args.out[0].as<float>();
    launch(lrn_scale_gradient_kernel, blocks_for(n, 256), dim3(256), 0, stream, d_dst, src, r, d_src, g,
           within, n);
    launch(lrn_window_gradient_kernel, blocks_for(n, 256), dim3(256), 0, stream, src, r, d_src, g, within, n);
  };
  return prepared;
}

}  // namespace frcnn::cuda
