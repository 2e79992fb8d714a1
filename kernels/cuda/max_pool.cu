// Max pooling by Caffe's rule: windows clipped to the map, a value replaces only if it is greater. One thread
// makes one pack of channels of one output pixel; neighbours in a warp are neighbours in channels, so every
// load is coalesced. Windows overlap at most (kernel/stride)^2 times and hit the cache; bound by memory.
#include <cfloat>

#include "kernels.h"
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

}  // namespace

Prepared prepare(const MaxPool& op, const KernelSpec& spec, const Settings&) {
  const Shape &s = spec.in[0].shape, &d = spec.out[0].shape;
  Prepared prepared;
  const DType storage = one_storage(spec.in[0].dtype, spec.out[0].dtype, "max_pool");
  with_packs(storage, s[3], "max_pool", [&](auto stored, auto lanes) {
    using T = typename decltype(stored)::type;
    constexpr int width = decltype(lanes)::value;
    const Window window{static_cast<int>(s[1]),
                        static_cast<int>(s[2]),
                        static_cast<int>(s[3] / width),
                        static_cast<int>(d[1]),
                        static_cast<int>(d[2]),
                        op.kernel,
                        op.stride,
                        op.pad};
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

}  // namespace frcnn::cuda
