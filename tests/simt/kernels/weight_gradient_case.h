// One convolution's weight gradient as its kernel runs, with tile, splits and arithmetic given instead of
// chosen.
#pragma once

#include <string>
#include <vector>

#include "gemm_case.h"
#include "reference/conv2d_backward.h"
#include "weight_gradient.h"

namespace frcnn::test {

struct WeightGradientCase {
  Shape src, weight;
  int stride = 1, pad = 0;
  bool accumulate = false;
};

inline Shape result_shape(const WeightGradientCase& c) {
  return conv_shape({c.src, c.weight, Conv2d{c.stride, c.pad, {}}, DType::f32});
}

inline std::string text(const WeightGradientCase& c) {
  return "weight gradient of " + to_string(c.src) + " with " + to_string(c.weight) + ", stride " +
         std::to_string(c.stride) + ", pad " + std::to_string(c.pad) +
         (c.accumulate ? ", added to what is there" : "");
}

// in: source, d_dst.
inline std::vector<Tensor> run_weight_gradient(const WeightGradientCase& c, const Arithmetic& arithmetic,
                                               const cuda::GemmChoice& choice, const std::vector<Tensor>& in,
                                               const std::vector<Tensor>& states, std::size_t order,
                                               std::size_t orders) {
  const Shape d = result_shape(c);
  cuda::WeightGradient g;
  g.batch = static_cast<int>(c.src[0]);
  g.height = static_cast<int>(c.src[1]);
  g.width = static_cast<int>(c.src[2]);
  g.channels = g.inner = static_cast<int>(c.src[3]);
  g.kernel_h = static_cast<int>(c.weight[2]);
  g.kernel_w = static_cast<int>(c.weight[3]);
  g.stride = c.stride;
  g.pad = c.pad;
  g.out_height = static_cast<int>(d[1]);
  g.out_width = static_cast<int>(d[2]);
  g.outputs = static_cast<int>(d[3]);
  g.accumulate = c.accumulate;
  const std::vector<TensorSpec> in_specs{in[0].spec, in[1].spec}, out{{c.weight}, {{c.weight[0]}}};
  cuda::Settings settings;
  settings.precision = arithmetic.precision;
  const Prepared prepared = cuda::prepare_weight_gradient(g, KernelSpec{in_specs, out}, settings, &choice);
  return run_orders(prepared, in, out, order, orders, states);
}

// Small integers: every sum is exact in any order and precision.
inline void check_weight_gradient(const WeightGradientCase& c, const Arithmetic& arithmetic,
                                  const cuda::GemmChoice& choice, std::size_t order, std::size_t orders) {
  const Shape d = result_shape(c);
  const Tensor src = integers(c.src, 7, 1), weight = integers(c.weight, 20, 2),
               bias = integers({c.weight[0]}, 20, 3);
  const Tensor d_dst = integers(d, 7, 4);
  std::vector<Tensor> states;
  if (c.accumulate) states = {weight, bias};
  auto expected = reference::conv2d_backward<float>(c.stride, c.pad, c.src, src.as<float>(), c.weight,
                                                    weight.as<float>(), d, d_dst.as<float>());
  if (c.accumulate) {
    for (std::size_t i = 0; i < expected.weight.size(); ++i) expected.weight[i] += weight.as<float>()[i];
    for (std::size_t i = 0; i < expected.bias.size(); ++i) expected.bias[i] += bias.as<float>()[i];
  }
  const std::vector<Tensor> got =
      run_weight_gradient(c, arithmetic, choice, {src, d_dst}, states, order, orders);
  CHECK(max_error(got[0].as<float>(), expected.weight) == 0);
  CHECK(max_error(got[1].as<float>(), expected.bias) == 0);
}

}  // namespace frcnn::test
