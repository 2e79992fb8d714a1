// dst = max(src, 0). A NaN gives 0, as in the fused form of the matrix products.
#include "cpu/multiversion.h"
#include "cpu/parallel.h"
#include "cpu/storage.h"
#include "kernels.h"

namespace frcnn::cpu {

namespace {

template <class T>
FRCNN_INLINE void relu_of(const T* src, T* dst, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    const float x = to_float(src[i]);
    dst[i] = narrowed<T>(x > 0.0f ? x : 0.0f);
  }
}

FRCNN_MULTIVERSION void relu(const float* src, float* dst, std::int64_t n) { relu_of(src, dst, n); }
FRCNN_MULTIVERSION void relu(const Bf16* src, Bf16* dst, std::int64_t n) { relu_of(src, dst, n); }

}  // namespace

Prepared prepare(const Relu&, const KernelSpec& spec, const Settings& settings) {
  return with_storage(one_storage(spec.in[0].dtype, spec.out[0].dtype, "relu"), "relu", [&](auto stored) {
    using T = typename decltype(stored)::type;
    Prepared prepared;
    prepared.implementation = "plain";
    prepared.run = [n = spec.out[0].shape.elements(), threads = settings.threads](const KernelArgs& args) {
      const T* src = args.in[0].as<const T>();
      T* dst = args.out[0].as<T>();
      parallel_for(n, threads, [=](std::int64_t begin, std::int64_t end) {
        relu(src + begin, dst + begin, end - begin);
      });
    };
    return prepared;
  });
}

}  // namespace frcnn::cpu
