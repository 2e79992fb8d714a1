// Dropout, forward and backward alike (kernels/philox.h). One thread draws four words for four neighbouring
// elements; bound by memory.
#include "box_math.h"
#include "f32_only.h"
#include "launch.h"
#include "philox.h"
#include "storage.h"

namespace frcnn::cuda {
namespace {

struct Rule {
  std::uint32_t limit, layer;
  float scale;
};

__global__ void __launch_bounds__(256)
    dropout_kernel(const float* src, const RandomKey* key, float* dst, Rule rule, std::int64_t n) {
  const RandomKey random = *key;
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t block = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; 4 * block < n;
       block += step) {
    const PhiloxCounter words = dropout_words(random, block, rule.layer);
    for (int k = 0; k < 4; ++k) {
      const std::int64_t i = 4 * block + k;
      if (i < n) dst[i] = words.word[k] < rule.limit ? 0.0f : ieee::mul(src[i], rule.scale);
    }
  }
}

}  // namespace

Prepared prepare(const Dropout& op, const KernelSpec& spec, const Settings&) {
  require_f32(spec, "dropout");
  Prepared prepared;
  prepared.implementation = "dropout";
  prepared.run = [rule = Rule{dropout_limit(op.ratio), op.layer, op.scale},
                  n = spec.out[0].shape.elements()](const KernelArgs& args) {
    if (n == 0) return;
    launch(dropout_kernel, blocks_for((n + 3) / 4, 256), dim3(256), 0, static_cast<cudaStream_t>(args.stream),
           args.in[0].as<const float>(), args.in[1].as<const RandomKey>(), args.out[0].as<float>(), rule, n);
  };
  return prepared;
}

}  // namespace frcnn::cuda
