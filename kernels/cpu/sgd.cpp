// Caffe's update: the learning rate is inside the velocity (SPEC section 12).
#include "cpu/multiversion.h"
#include "cpu/parallel.h"
#include "kernels.h"

namespace frcnn::cpu {

namespace {

struct Rule {
  float momentum, rate, decay, factor,
      average;  // average: how far the moving average goes towards the weight
};

FRCNN_MULTIVERSION void update(const Rule& rule, const float* gradient, float* w, float* v, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    v[i] = rule.momentum * v[i] + rule.rate * (rule.factor * gradient[i] + rule.decay * w[i]);
    w[i] -= v[i];
  }
}

FRCNN_MULTIVERSION void follow(float step, const float* w, float* average, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) average[i] += step * (w[i] - average[i]);
}

}  // namespace

Prepared prepare(const Sgd& op, const KernelSpec& spec, const Settings& settings) {
  Prepared prepared;
  prepared.implementation = "plain";
  prepared.run = [op, n = spec.out[0].shape.elements(), threads = settings.threads](const KernelArgs& args) {
    const float factor = *args.in[1].as<const float>(), *rates = args.in[2].as<const float>();
    const Rule rule{static_cast<float>(op.momentum), static_cast<float>(rates[0] * op.lr_mult),
                    static_cast<float>(op.decay), static_cast<float>(op.grad_scale * factor),
                    1.0f - rates[1]};
    if (factor != factor) return;  // a gradient is not finite
    const float* gradient = args.in[0].as<const float>();
    float *w = args.out[0].as<float>(), *v = args.out[1].as<float>();
    float* average = op.average ? args.out[2].as<float>() : nullptr;
    parallel_for(n, threads, [&](std::int64_t begin, std::int64_t end) {
      update(rule, gradient + begin, w + begin, v + begin, end - begin);
      if (average) follow(rule.average, w + begin, average + begin, end - begin);
    });
  };
  return prepared;
}

}  // namespace frcnn::cpu
