// Dropout, forward and backward alike: a word of Philox for each element says whether it stays.
#include "cpu/parallel.h"
#include "kernels.h"
#include "philox.h"

namespace frcnn::cpu {

Prepared prepare(const Dropout& op, const KernelSpec& spec, const Settings& settings) {
  Prepared prepared;
  prepared.implementation = "plain";
  prepared.run = [op, n = spec.out[0].shape.elements(), threads = settings.threads](const KernelArgs& args) {
    const float* src = args.in[0].as<const float>();
    const RandomKey key = *args.in[1].as<const RandomKey>();
    float* dst = args.out[0].as<float>();
    parallel_for((n + 3) / 4, threads, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t block = begin; block < end; ++block) {
        const PhiloxCounter words = dropout_words(key, block, op.layer);
        for (std::int64_t i = 4 * block; i < std::min(4 * block + 4, n); ++i)
          dst[i] = words.word[i % 4] < dropout_limit(op.ratio) ? 0.0f : src[i] * op.scale;
      }
    });
  };
  return prepared;
}

}  // namespace frcnn::cpu
