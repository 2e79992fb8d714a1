// Gradients without a backward: differences of the forward reference, evaluated in double.
#pragma once

#include <cmath>
#include <random>
#include <span>
#include <vector>

#include "ops/op_runner.h"

namespace frcnn::test {

// Uniform multiples of 1/256 in [low, high): the steps below are then exact.
inline Tensor on_grid(Shape shape, float low, float high, unsigned salt) {
  Tensor tensor = uniform(shape, low, high, salt);
  for (float& x : tensor.as<float>()) x = std::floor(x * 256) / 256;
  return tensor;
}

// Multiples of 1/16 in random order, no two equal: no maximum changes hands within the steps below.
inline Tensor distinct(Shape shape, unsigned salt) {
  Tensor tensor({shape, DType::f32});
  const auto values = tensor.as<float>();
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(i) / 16 - static_cast<float>(values.size()) / 32;
  std::mt19937 random(base_seed() * 7919u + salt);
  for (std::size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[random() % i]);
  return tensor;
}

// The gradient of sum(d_dst * forward(x)) at `at`; forward(span of float) gives a vector. Four points, so
// that the error is of fourth order in the step of 1/64; none at all where the forward is linear.
template <class Forward>
std::vector<double> central_differences(std::span<const float> at, std::span<const float> d_dst,
                                        const Forward& forward) {
  constexpr float step = 1.0f / 64;
  std::vector<float> x(at.begin(), at.end());
  const auto loss = [&](std::size_t i, float by) {
    const float before = x[i];
    x[i] = before + by;
    REQUIRE(x[i] - before == by);
    const auto dst = forward(std::span<const float>(x));
    x[i] = before;
    REQUIRE(dst.size() == d_dst.size());
    double sum = 0;
    for (std::size_t k = 0; k < dst.size(); ++k)
      sum += static_cast<double>(d_dst[k]) * static_cast<double>(dst[k]);
    return sum;
  };
  std::vector<double> gradient;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double near = loss(i, step) - loss(i, -step), far = loss(i, 2 * step) - loss(i, -2 * step);
    gradient.push_back((8 * near - far) / (12 * static_cast<double>(step)));
  }
  return gradient;
}

}  // namespace frcnn::test
