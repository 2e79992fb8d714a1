// dst = factor * src.
#include "cpu/multiversion.h"
#include "cpu/parallel.h"
#include "cpu/storage.h"
#include "kernels.h"

namespace frcnn::cpu {

namespace {

template <class T>
FRCNN_INLINE void scale_of(const T* src, T* dst, std::int64_t n, float factor) {
  for (std::int64_t i = 0; i < n; ++i) dst[i] = from_float<T>(to_float(src[i]) * factor);
}

FRCNN_MULTIVERSION void scale(const float* src, float* dst, std::int64_t n, float factor) {
  scale_of(src, dst, n, factor);
}
FRCNN_MULTIVERSION void scale(const Bf16* src, Bf16* dst, std::int64_t n, float factor) {
  scale_of(src, dst, n, factor);
}

}  // namespace

Prepared prepare(const Scale& op, const KernelSpec& spec, const Settings& settings) {
  return with_storage(one_storage(spec.in[0].dtype, spec.out[0].dtype, "scale"), "scale", [&](auto stored) {
    using T = typename decltype(stored)::type;
    Prepared prepared;
    prepared.implementation = "plain";
    prepared.run = [n = spec.out[0].shape.elements(), threads = settings.threads,
                    factor = op.factor](const KernelArgs& args) {
      const T* src = args.in[0].as<const T>();
      T* dst = args.out[0].as<T>();
      parallel_for(n, threads, [=](std::int64_t begin, std::int64_t end) {
        scale(src + begin, dst + begin, end - begin, factor);
      });
    };
    return prepared;
  });
}

}  // namespace frcnn::cpu
