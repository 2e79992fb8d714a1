// dst = factor * src. One thread, one pack; bound by memory.
#include "box_math.h"
#include "kernels.h"
#include "launch.h"
#include "storage.h"

namespace frcnn::cuda {
namespace {

template <class T, int lanes>
__global__ void __launch_bounds__(256)
    scale_kernel(const Pack<T, lanes>* src, Pack<T, lanes>* dst, std::int64_t packs, float factor) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < packs; i += step) {
    Pack<T, lanes> v = src[i];
    for (int k = 0; k < lanes; ++k) v.lane[k] = from_float<T>(ieee::mul(factor, to_float(v.lane[k])));
    dst[i] = v;
  }
}

}  // namespace

Prepared prepare(const Scale& op, const KernelSpec& spec, const Settings&) {
  const std::int64_t n = spec.out[0].shape.elements();
  Prepared prepared;
  const DType storage = one_storage(spec.in[0].dtype, spec.out[0].dtype, "scale");
  with_packs(storage, n, "scale", [&](auto stored, auto lanes) {
    using T = typename decltype(stored)::type;
    constexpr int width = decltype(lanes)::value;
    prepared.implementation = "scale:" + std::to_string(width);
    prepared.run = [packs = n / width, factor = op.factor](const KernelArgs& args) {
      if (packs == 0) return;
      launch(scale_kernel<T, width>, blocks_for(packs, 256), dim3(256), 0,
             static_cast<cudaStream_t>(args.stream), args.in[0].template as<const Pack<T, width>>(),
             args.out[0].template as<Pack<T, width>>(), packs, factor);
    };
  });
  return prepared;
}

}  // namespace frcnn::cuda
