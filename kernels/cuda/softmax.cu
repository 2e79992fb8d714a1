// Softmax over channels that lie `groups` apart, in fp32 and in the CPU's order of operations, so that scores
// get the same bits everywhere. One thread makes one group: the maps are small (RPN scores, class scores),
// the launch is the cost.
#include "box_math.h"
#include "kernels.h"
#include "launch.h"
#include "storage.h"

namespace frcnn::cuda {
namespace {

__global__ void __launch_bounds__(128)
    softmax_kernel(const float* src, float* dst, int channels, int groups, std::int64_t n) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
    const std::int64_t first = i / groups * channels + i % groups;
    float largest = src[first];
    for (int c = groups; c < channels; c += groups)
      largest = src[first + c] > largest ? src[first + c] : largest;
    float sum = 0.0f;
    for (int c = 0; c < channels; c += groups) {
      const float e = exp_f32(ieee::sub(src[first + c], largest));
      dst[first + c] = e;
      sum = ieee::add(sum, e);
    }
    for (int c = 0; c < channels; c += groups) dst[first + c] = ieee::div(dst[first + c], sum);
  }
}

}  // namespace

Prepared prepare(const Softmax& op, const KernelSpec& spec, const Settings&) {
  const Shape& s = spec.in[0].shape;
  const int channels = static_cast<int>(s[s.rank - 1]), groups = op.groups;
  const std::int64_t n = channels == 0 ? 0 : s.elements() / channels * groups;
  Prepared prepared;
  prepared.implementation = "softmax";
  prepared.run = [=](const KernelArgs& args) {
    if (n == 0) return;
    launch(softmax_kernel, blocks_for(n, 128), dim3(128), 0, static_cast<cudaStream_t>(args.stream),
           args.in[0].as<const float>(), args.out[0].as<float>(), channels, groups, n);
  };
  return prepared;
}

}  // namespace frcnn::cuda
