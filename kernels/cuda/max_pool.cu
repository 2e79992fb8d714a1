// Max pooling by Caffe's rule: windows clipped to the map, a value replaces only if it is greater. One thread
// makes one pack of channels of one output pixel; neighbours in a warp are neighbours in channels, so every
// load is coalesced. Windows overlap at most (kernel/stride)^2 times and hit the cache; bound by memory. In
// training the place of the maximum is stored beside it, and backward one thread makes one pack of one source
// cell: it gathers from the windows that reach the cell, in order.
#include <cfloat>

#include "f32_only.h"
#include "launch.h"
#include "storage.h"

namespace frcnn::cuda {
namespace {

struct Window {
  int height, width, packs;  // of one source map, channels counted in packs
  int out_height, out_width;
  int kernel, stride, pad;
};

template <class T, int lanes>
__global__ void __launch_bounds__(256)
    max_pool_kernel(const Pack<T, lanes>* src, Pack<T, lanes>* dst, Window w, std::int64_t n) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
    const int pack = static_cast<int>(i % w.packs);
    std::int64_t rest = i / w.packs;
    const int x = static_cast<int>(rest % w.out_width);
    rest /= w.out_width;
    const int y = static_cast<int>(rest % w.out_height);
    const Pack<T, lanes>* const image = src + rest / w.out_height * w.height * w.width * w.packs;
    const int y0 = max(y * w.stride - w.pad, 0), y1 = min(y * w.stride - w.pad + w.kernel, w.height);
    const int x0 = max(x * w.stride - w.pad, 0), x1 = min(x * w.stride - w.pad + w.kernel, w.width);
    float best[lanes];
    for (int k = 0; k < lanes; ++k) best[k] = -FLT_MAX;
    for (int sy = y0; sy < y1; ++sy) {
      for (int sx = x0; sx < x1; ++sx) {
        const Pack<T, lanes> v = image[(std::int64_t{sy} * w.width + sx) * w.packs + pack];
        for (int k = 0; k < lanes; ++k)
          best[k] = to_float(v.lane[k]) > best[k] ? to_float(v.lane[k]) : best[k];
      }
    }
    Pack<T, lanes> out;
    for (int k = 0; k < lanes; ++k) out.lane[k] = from_float<T>(best[k]);
    dst[i] = out;
  }
}

// The same with row * kernel + column of the maximum; the window's first cell where none is greater than
// -FLT_MAX.
template <int lanes>
__global__ void __launch_bounds__(256)
    max_pool_argmax_kernel(const Pack<float, lanes>* src, Pack<float, lanes>* dst,
                           Pack<std::uint8_t, lanes>* argmax, Window w, std::int64_t n) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
    const int pack = static_cast<int>(i % w.packs);
    std::int64_t rest = i / w.packs;
    const int x = static_cast<int>(rest % w.out_width);
    rest /= w.out_width;
    const int y = static_cast<int>(rest % w.out_height);
    const Pack<float, lanes>* const image = src + rest / w.out_height * w.height * w.width * w.packs;
    const int top = y * w.stride - w.pad, left = x * w.stride - w.pad;
    const int y0 = max(top, 0), y1 = min(top + w.kernel, w.height);
    const int x0 = max(left, 0), x1 = min(left + w.kernel, w.width);
    Pack<float, lanes> best;
    Pack<std::uint8_t, lanes> place;
    for (int k = 0; k < lanes; ++k) {
      best.lane[k] = -FLT_MAX;
      place.lane[k] = static_cast<std::uint8_t>((y0 - top) * w.kernel + x0 - left);
    }
    for (int sy = y0; sy < y1; ++sy) {
      for (int sx = x0; sx < x1; ++sx) {
        const Pack<float, lanes> v = image[(std::int64_t{sy} * w.width + sx) * w.packs + pack];
        for (int k = 0; k < lanes; ++k) {
          if (!(v.lane[k] > best.lane[k])) continue;
          best.lane[k] = v.lane[k];
          place.lane[k] = static_cast<std::uint8_t>((sy - top) * w.kernel + sx - left);
        }
      }
    }
    dst[i] = best;
    argmax[i] = place;
  }
}

// n packs of the source.
template <int lanes>
__global__ void __launch_bounds__(256)
    max_pool_backward_kernel(const Pack<float, lanes>* d_dst, const Pack<std::uint8_t, lanes>* argmax,
                             Pack<float, lanes>* d_src, Window w, std::int64_t n) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
    const int pack = static_cast<int>(i % w.packs);
    std::int64_t rest = i / w.packs;
    const int x = static_cast<int>(rest % w.width) + w.pad;  // from the padding's edge
    rest /= w.width;
    const int y = static_cast<int>(rest % w.height) + w.pad;
    const std::int64_t image = rest / w.height * w.out_height * w.out_width * w.packs;
    const int oy0 = y < w.kernel ? 0 : (y - w.kernel) / w.stride + 1,
              oy1 = min(y / w.stride, w.out_height - 1);
    const int ox0 = x < w.kernel ? 0 : (x - w.kernel) / w.stride + 1,
              ox1 = min(x / w.stride, w.out_width - 1);
    Pack<float, lanes> sum;
    for (int k = 0; k < lanes; ++k) sum.lane[k] = 0.0f;
    for (int oy = oy0; oy <= oy1; ++oy) {
      for (int ox = ox0; ox <= ox1; ++ox) {
        const std::int64_t at = image + (std::int64_t{oy} * w.out_width + ox) * w.packs + pack;
        const int place = (y - oy * w.stride) * w.kernel + x - ox * w.stride;
        const Pack<float, lanes> top = d_dst[at];
        const Pack<std::uint8_t, lanes> from = argmax[at];
        for (int k = 0; k < lanes; ++k)
          if (from.lane[k] == place) sum.lane[k] += top.lane[k];
      }
    }
    d_src[i] = sum;
  }
}

Window window_of(const MaxPool& op, const Shape& src, const Shape& dst, int lanes) {
  return {static_cast<int>(src[1]),
          static_cast<int>(src[2]),
          static_cast<int>(src[3] / lanes),
          static_cast<int>(dst[1]),
          static_cast<int>(dst[2]),
          op.kernel,
          op.stride,
          op.pad};
}

Prepared with_argmax(const MaxPool& op, const KernelSpec& spec) {
  require_f32(spec, "max_pool with its maxima");
  const Shape &s = spec.in[0].shape, &d = spec.out[0].shape;
  Prepared prepared;
  with_f32_packs(s[3], [&](auto lanes) {
    constexpr int width = decltype(lanes)::value;
    prepared.implementation = "max_pool:argmax:" + std::to_string(width);
    prepared.run = [w = window_of(op, s, d, width), n = d.elements() / width](const KernelArgs& args) {
      if (n == 0) return;
      launch(max_pool_argmax_kernel<width>, blocks_for(n, 256), dim3(256), 0,
             static_cast<cudaStream_t>(args.stream), args.in[0].template as<const Pack<float, width>>(),
             args.out[0].template as<Pack<float, width>>(),
             args.out[1].template as<Pack<std::uint8_t, width>>(), w, n);
    };
  });
  return prepared;
}

}  // namespace

Prepared prepare(const MaxPool& op, const KernelSpec& spec, const Settings&) {
  if (op.save_argmax) return with_argmax(op, spec);
  const Shape &s = spec.in[0].shape, &d = spec.out[0].shape;
  Prepared prepared;
  const DType storage = one_storage(spec.in[0].dtype, spec.out[0].dtype, "max_pool");
  with_packs(storage, s[3], "max_pool", [&](auto stored, auto lanes) {
    using T = typename decltype(stored)::type;
    constexpr int width = decltype(lanes)::value;
    const Window window = window_of(op, s, d, width);
    prepared.implementation = "max_pool:" + std::to_string(width);
    prepared.run = [window, n = d.elements() / width](const KernelArgs& args) {
      if (n == 0) return;
      launch(max_pool_kernel<T, width>, blocks_for(n, 256), dim3(256), 0,
             static_cast<cudaStream_t>(args.stream), args.in[0].template as<const Pack<T, width>>(),
             args.out[0].template as<Pack<T, width>>(), window, n);
    };
  });
  return prepared;
}

Prepared prepare(const MaxPoolBackward& op, const KernelSpec& spec, const Settings&) {
  require_f32(spec, "max_pool_backward");
  const Shape &d = spec.in[0].shape, &s = spec.out[0].shape;
  Prepared prepared;
  with_f32_packs(s[3], [&](auto lanes) {
    constexpr int width = decltype(lanes)::value;
    prepared.implementation = "max_pool_backward:" + std::to_string(width);
    prepared.run = [w = window_of(op.pool, s, d, width), n = s.elements() / width](const KernelArgs& args) {
      if (n == 0) return;
      launch(max_pool_backward_kernel<width>, blocks_for(n, 256), dim3(256), 0,
             static_cast<cudaStream_t>(args.stream), args.in[0].template as<const Pack<float, width>>(),
             args.in[1].template as<const Pack<std::uint8_t, width>>(),
             args.out[0].template as<Pack<float, width>>(), w, n);
    };
  });
  return prepared;
}

}  // namespace frcnn::cuda
