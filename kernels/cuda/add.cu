// dst = a + b. One thread, one pack; bound by memory.
#include "f32_only.h"
#include "launch.h"
#include "storage.h"

namespace frcnn::cuda {
namespace {

template <int lanes>
__global__ void __launch_bounds__(256) add_kernel(const Pack<float, lanes>* a, const Pack<float, lanes>* b,
                                                  Pack<float, lanes>* dst, std::int64_t packs) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < packs; i += step) {
    Pack<float, lanes> v = a[i];
    const Pack<float, lanes> w = b[i];
    for (int k = 0; k < lanes; ++k) v.lane[k] += w.lane[k];
    dst[i] = v;
  }
}

}  // namespace

Prepared prepare(const Add&, const KernelSpec& spec, const Settings&) {
  require_f32(spec, "add");
  const std::int64_t n = spec.out[0].shape.elements();
  Prepared prepared;
  with_f32_packs(n, [&](auto lanes) {
    constexpr int width = decltype(lanes)::value;
    using Packs = Pack<float, width>;
    prepared.implementation = "add:" + std::to_string(width);
    prepared.run = [packs = n / width](const KernelArgs& args) {
      if (packs == 0) return;
      launch(add_kernel<width>, blocks_for(packs, 256), dim3(256), 0, static_cast<cudaStream_t>(args.stream),
             args.in[0].template as<const Packs>(), args.in[1].template as<const Packs>(),
             args.out[0].template as<Packs>(), packs);
    };
  });
  return prepared;
}

}  // namespace frcnn::cuda
