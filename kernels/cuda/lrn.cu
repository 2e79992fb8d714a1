// Local response normalisation, both kinds: y = x (shift + factor * sum of squares over a window)^-beta. The
// window is size x size cells of one channel, or `size` channels of one cell. One thread makes one value and
// reads its whole window; neighbours in a warp are neighbours in channels. The window's reads hit the cache,
// so memory bounds it up to size 5 or so.
#include "box_math.h"
#include "kernels.h"
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

}  // namespace

Prepared prepare(const Lrn& op, const KernelSpec& spec, const Settings&) {
  const Shape& s = spec.in[0].shape;
  const bool within = op.region == LrnRegion::within_channel;
  const double cells = within ? static_cast<double>(op.size) * op.size : op.size;
  const Geometry g{static_cast<int>(s[1]),
                   static_cast<int>(s[2]),
                   static_cast<int>(s[3]),
                   op.size,
                   op.alpha / cells,
                   within ? 1.0 : op.k,
                   op.beta};
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

}  // namespace frcnn::cuda
