// (src - offset) * factor inside a border of (0 - offset) * factor.
#include "cpu/parallel.h"
#include "kernels.h"

namespace frcnn::cpu {

Prepared prepare(const InputUnits& op, const KernelSpec& spec, const Settings& settings) {
  const Shape s = spec.in[0].shape, d = spec.out[0].shape;
  Prepared prepared;
  prepared.implementation = "plain";
  prepared.run = [op, s, d, threads = settings.threads](const KernelArgs& args) {
    const float* src = args.in[0].as<const float>();
    float* dst = args.out[0].as<float>();
    parallel_for(d[0] * d[1], threads, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        const std::int64_t y = row % d[1] - op.pad;
        const float* from = src + (row / d[1] * s[1] + y) * s[2] * 3;
        float* to = dst + row * d[2] * 3;
        for (std::int64_t x = -op.pad; x < s[2] + op.pad; ++x, to += 3) {
          const bool inside = y >= 0 && y < s[1] && x >= 0 && x < s[2];
          for (int c = 0; c < 3; ++c)
            to[c] = ((inside ? from[x * 3 + c] : 0.0f) - op.offset[static_cast<std::size_t>(c)]) * op.factor;
        }
      }
    });
  };
  return prepared;
}

}  // namespace frcnn::cpu
