// dst = max(src, 0); a NaN gives 0, as in the fused form. Backward, d_src = d_dst where dst was positive. One
// thread, one pack; bound by memory.
#include "f32_only.h"
#include "launch.h"
#include "storage.h"

namespace frcnn::cuda {
namespace {

template <class T, int lanes>
__global__ void __launch_bounds__(256)
    relu_kernel(const Pack<T, lanes>* src, Pack<T, lanes>* dst, std::int64_t packs) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < packs; i += step) {
    Pack<T, lanes> v = src[i];
    for (int k = 0; k < lanes; ++k)
      v.lane[k] = from_float<T>(to_float(v.lane[k]) > 0.0f ? to_float(v.lane[k]) : 0.0f);
    dst[i] = v;
  }
}

template <int lanes>
__global__ void __launch_bounds__(256)
    relu_backward_kernel(const Pack<float, lanes>* d_dst, const Pack<float, lanes>* dst,
                         Pack<float, lanes>* d_src, std::int64_t packs) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < packs; i += step) {
    Pack<float, lanes> v = d_dst[i];
    const Pack<float, lanes> result = dst[i];
    for (int k = 0; k < lanes; ++k)
      if (!(result.lane[k] > 0.0f)) v.lane[k] = 0.0f;
    d_src[i] = v;
  }
}

}  // namespace

Prepared prepare(const Relu&, const KernelSpec& spec, const Settings&) {
  const std::int64_t n = spec.out[0].shape.elements();
  Prepared prepared;
  const DType storage = one_storage(spec.in[0].dtype, spec.out[0].dtype, "relu");
  with_packs(storage, n, "relu", [&](auto stored, auto lanes) {
    using T = typename decltype(stored)::type;
    constexpr int width = decltype(lanes)::value;
    prepared.implementation = "relu:" + std::to_string(width);
    prepared.run = [packs = n / width](const KernelArgs& args) {
      if (packs == 0) return;
      launch(relu_kernel<T, width>, blocks_for(packs, 256), dim3(256), 0,
             static_cast<cudaStream_t>(args.stream), args.in[0].template as<const Pack<T, width>>(),
             args.out[0].template as<Pack<T, width>>(), packs);
    };
  });
  return prepared;
}

Prepared prepare(const ReluBackward&, const KernelSpec& spec, const Settings&) {
  require_f32(spec, "relu_backward");
  const std::int64_t n = spec.out[0].shape.elements();
  Prepared prepared;
  with_f32_packs(n, [&](auto lanes) {
    constexpr int width = decltype(lanes)::value;
    using Packs = Pack<float, width>;
    prepared.implementation = "relu_backward:" + std::to_string(width);
    prepared.run = [packs = n / width](const KernelArgs& args) {
      if (packs == 0) return;
      launch(relu_backward_kernel<width>, blocks_for(packs, 256), dim3(256), 0,
             static_cast<cudaStream_t>(args.stream), args.in[0].template as<const Packs>(),
             args.in[1].template as<const Packs>(), args.out[0].template as<Packs>(), packs);
    };
  });
  return prepared;
}

}  // namespace frcnn::cuda
