// Caffe's update (SPEC section 12): the learning rate is inside the velocity. A factor that is NaN leaves
// everything as it is. One thread, one weight; bound by memory.
#include "box_math.h"
#include "f32_only.h"
#include "launch.h"
#include "storage.h"
#include "target_math.h"

namespace frcnn::cuda {
namespace {

struct Rule {
  double lr_mult, grad_scale;
  float momentum, decay;
};

__global__ void __launch_bounds__(256)
    sgd_kernel(const float* gradient, const float* factor, const float* rates, float* w, float* v,
               float* average, Rule rule, std::int64_t n) {
  using namespace ieee;
  if (*factor != *factor) return;
  const float scale = static_cast<float>(mul(rule.grad_scale, static_cast<double>(*factor)));
  const float rate = static_cast<float>(mul(static_cast<double>(rates[0]), rule.lr_mult));
  const float follow = sub(1.0f, rates[1]);  // how far the average goes towards the weight
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
    const float g = add(mul(scale, gradient[i]), mul(rule.decay, w[i]));
    const float velocity = add(mul(rule.momentum, v[i]), mul(rate, g)), weight = sub(w[i], velocity);
    v[i] = velocity;
    w[i] = weight;
    if (average) average[i] = add(average[i], mul(follow, sub(weight, average[i])));
  }
}

}  // namespace

Prepared prepare(const Sgd& op, const KernelSpec& spec, const Settings&) {
  require_f32(spec, "sgd");
  const Rule rule{op.lr_mult, op.grad_scale, static_cast<float>(op.momentum), static_cast<float>(op.decay)};
  Prepared prepared;
  prepared.implementation = "sgd";
  prepared.run = [rule, averages = op.average, n = spec.out[0].shape.elements()](const KernelArgs& args) {
    if (n == 0) return;
    launch(sgd_kernel, blocks_for(n, 256), dim3(256), 0, static_cast<cudaStream_t>(args.stream),
           args.in[0].as<const float>(), args.in[1].as<const float>(), args.in[2].as<const float>(),
           args.out[0].as<float>(), args.out[1].as<float>(), averages ? args.out[2].as<float>() : nullptr,
           rule, n);
  };
  return prepared;
}

}  // namespace frcnn::cuda
