// Smooth L1 with inside and outside weights, and its gradient, in double as on the CPU. One thread an
// element, then one block adds the losses (kernels/lane_sum.h). Bound by memory and the launches.
#include "block_sum.h"
#include "f32_only.h"
#include "launch.h"
#include "storage.h"

namespace frcnn::cuda {
namespace {

struct Element {
  const float *pred, *target, *inside, *outside;
  const int* count;  // whose sum is the divisor
  int counts;        // how many of them; none: `images` is the divisor
  double images, sigma2;
};

__device__ double divisor_of(const Element& e) {
  std::int64_t sum = 0;
  for (int i = 0; i < e.counts; ++i) sum += e.count[i];
  const double divisor = e.count ? static_cast<double>(sum) : e.images;
  return divisor < 1 ? 1 : divisor;
}

__global__ void __launch_bounds__(256)
    smooth_l1_kernel(__grid_constant__ const Element e, float* d_pred, double* losses, std::int64_t n) {
  const double divisor = divisor_of(e);
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
    const float in = e.inside[i], out = e.outside[i];
    d_pred[i] = 0.0f;
    losses[i] = 0;
    // What takes no part may hold anything, also the NaN of a target without a size.
    if (in == 0.0f || out == 0.0f) continue;
    const double x = __dmul_rn(in, __dsub_rn(e.pred[i], e.target[i]));
    const bool near = fabs(x) < __ddiv_rn(1.0, e.sigma2);
    const double slope = near ? __dmul_rn(e.sigma2, x) : x > 0 ? 1.0 : x < 0 ? -1.0 : x;  // NaN stays
    const double loss = near ? __dmul_rn(__dmul_rn(__dmul_rn(0.5, e.sigma2), x), x)
                             : __dsub_rn(fabs(x), __ddiv_rn(0.5, e.sigma2));
    losses[i] = __dmul_rn(out, loss);
    d_pred[i] = static_cast<float>(__ddiv_rn(__dmul_rn(static_cast<double>(out * in), slope), divisor));
  }
}

__global__ void __launch_bounds__(sum_lanes)
    smooth_l1_sum_kernel(__grid_constant__ const Element e, const double* losses, float* loss,
                         std::int64_t n) {
  __shared__ double lanes[sum_lanes];
  const double sum = sum_items(losses, n, lanes);
  if (threadIdx.x == 0) *loss = static_cast<float>(__ddiv_rn(sum, divisor_of(e)));
}

}  // namespace

Prepared prepare(const SmoothL1Loss& op, const KernelSpec& spec, const Settings&) {
  require_f32(spec, "smooth_l1_loss");
  const Shape& s = spec.in[0].shape;
  const std::int64_t n = s.elements();
  const bool counted = spec.in.size() == 5;
  const Element element{nullptr,
                        nullptr,
                        nullptr,
                        nullptr,
                        nullptr,
                        counted ? static_cast<int>(spec.in[4].shape[0]) : 0,
                        static_cast<double>(s[0]),
                        op.sigma * op.sigma};
  Prepared prepared;
  prepared.implementation = "smooth_l1_loss";
  prepared.workspace_bytes = static_cast<std::size_t>(n) * sizeof(double);
  prepared.run = [=](const KernelArgs& args) {
    const auto stream = static_cast<cudaStream_t>(args.stream);
    auto* const losses = static_cast<double*>(args.workspace);
    Element e = element;
    e.pred = args.in[0].as<const float>();
    e.target = args.in[1].as<const float>();
    e.inside = args.in[2].as<const float>();
    e.outside = args.in[3].as<const float>();
    if (counted) e.count = args.in[4].as<const int>();
    if (n > 0)
      launch(smooth_l1_kernel, blocks_for(n, 256), dim3(256), 0, stream, e, args.out[1].as<float>(), losses,
             n);
    launch(smooth_l1_sum_kernel, dim3(1), dim3(sum_lanes), 0, stream, e, losses, args.out[0].as<float>(), n);
  };
  return prepared;
}

}  // namespace frcnn::cuda
