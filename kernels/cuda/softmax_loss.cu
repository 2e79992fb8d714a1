// Cross-entropy of a softmax and its gradient, in the CPU's order of operations:
//   count   one block: how many labels take part, the divisor
//   softmax one thread a group of channels: its loss, and softmax - onehot over the divisor
//   sum     one block adds the losses (kernels/lane_sum.h)
// The maps are small: bound by the launches.
#include <cfloat>
#include <cmath>

#include "block_sum.h"
#include "box_math.h"
#include "f32_only.h"
#include "launch.h"
#include "storage.h"

namespace frcnn::cuda {
namespace {

__global__ void __launch_bounds__(sum_lanes)
    softmax_loss_count_kernel(const int* labels, double* divisor, double given, std::int64_t n) {
  __shared__ double lanes[sum_lanes];
  int own = 0;
  for (std::int64_t i = threadIdx.x; i < n; i += sum_lanes) own += labels[i] >= 0;
  const double counted = add_lanes(own, lanes);
  if (threadIdx.x == 0) *divisor = given > 0 ? given : counted < 1 ? 1 : counted;
}

// The loss of one group; a label that is no class gives NaN, which stops training. d gets softmax - onehot.
__device__ double cross_entropy(const float* score, int label, int count, int step, float* d) {
  float largest = score[0], sum = 0.0f;
  for (int i = 1; i < count; ++i) largest = largest < score[i * step] ? score[i * step] : largest;
  for (int i = 0; i < count; ++i) {
    const float e = exp_f32(ieee::sub(score[i * step], largest));
    d[i * step] = e;
    sum = ieee::add(sum, e);
  }
  for (int i = 0; i < count; ++i) d[i * step] = ieee::div(d[i * step], sum);
  if (label >= count) return __longlong_as_double(0x7FF8000000000000ll);
  const float p = d[label * step];
  d[label * step] = ieee::sub(p, 1.0f);
  return p == p ? -log(static_cast<double>(p < FLT_MIN ? FLT_MIN : p)) : p;
}

__global__ void __launch_bounds__(128)
    softmax_loss_kernel(const float* score, const int* labels, const double* divisor, float* d_score,
                        double* losses, int channels, int groups, std::int64_t n) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  const int classes = channels / groups;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
    const std::int64_t first = i / groups * channels + i % groups;
    float* const d = d_score + first;
    losses[i] = labels[i] < 0 ? 0 : cross_entropy(score + first, labels[i], classes, groups, d);
    for (int c = 0; c < classes; ++c)
      d[c * groups] = labels[i] < 0 ? 0.0f : static_cast<float>(__ddiv_rn(d[c * groups], *divisor));
  }
}

__global__ void __launch_bounds__(sum_lanes)
    softmax_loss_sum_kernel(const double* losses, const double* divisor, float* loss, std::int64_t n) {
  __shared__ double lanes[sum_lanes];
  const double sum = sum_items(losses, n, lanes);
  if (threadIdx.x == 0) *loss = static_cast<float>(__ddiv_rn(sum, *divisor));
}

}  // namespace

Prepared prepare(const SoftmaxLoss& op, const KernelSpec& spec, const Settings&) {
  require_f32(spec, "softmax_loss");
  const Shape& s = spec.in[0].shape;
  const int channels = static_cast<int>(s[s.rank - 1]), groups = op.groups;
  const std::int64_t n = channels == 0 ? 0 : s.elements() / channels * groups;
  Prepared prepared;
  prepared.implementation = "softmax_loss";
  prepared.workspace_bytes = static_cast<std::size_t>(n + 1) * sizeof(double);
  prepared.run = [=](const KernelArgs& args) {
    const auto stream = static_cast<cudaStream_t>(args.stream);
    const auto* labels = args.in[1].as<const int>();
    auto* const divisor = static_cast<double*>(args.workspace);
    launch(softmax_loss_count_kernel, dim3(1), dim3(sum_lanes), 0, stream, labels, divisor, op.divisor, n);
    if (n > 0)
      launch(softmax_loss_kernel, blocks_for(n, 128), dim3(128), 0, stream, args.in[0].as<const float>(),
             labels, divisor, args.out[1].as<float>(), divisor + 1, channels, groups, n);
    launch(softmax_loss_sum_kernel, dim3(1), dim3(sum_lanes), 0, stream, divisor + 1, divisor,
           args.out[0].as<float>(), n);
  };
  return prepared;
}

}  // namespace frcnn::cuda
