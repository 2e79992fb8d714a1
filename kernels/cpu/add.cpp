// dst = a + b.
#include "cpu/multiversion.h"
#include "cpu/parallel.h"
#include "kernels.h"

namespace frcnn::cpu {

namespace {

FRCNN_MULTIVERSION void add(const float* a, const float* b, float* dst, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) dst[i] = a[i] + b[i];
}

}  // namespace

Prepared prepare(const Add&, const KernelSpec& spec, const Settings& settings) {
  Prepared prepared;
  prepared.implementation = "plain";
  prepared.run = [n = spec.out[0].shape.elements(), threads = settings.threads](const KernelArgs& args) {
    const float *a = args.in[0].as<const float>(), *b = args.in[1].as<const float>();
    float* dst = args.out[0].as<float>();
    parallel_for(n, threads, [=](std::int64_t begin, std::int64_t end) {
      add(a + begin, b + begin, dst + begin, end - begin);
    });
  };
  return prepared;
}

}  // namespace frcnn::cpu
