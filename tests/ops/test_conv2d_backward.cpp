#include <string>

#include "central_differences.h"
#include "op_runner.h"
#include "reference/conv2d.h"
#include "reference/conv2d_backward.h"

using namespace frcnn;
using namespace frcnn::test;

namespace {

struct Case {
  Shape src, weight;
  int stride = 1, pad = 0;
};

std::string text(const Case& c) {
  return "conv2d_backward of " + to_string(c.src) + " with " + to_string(c.weight) + ", stride " +
         std::to_string(c.stride) + ", pad " + std::to_string(c.pad);
}

const Case cases[] = {
    {{1, 1, 1, 1}, {1, 1, 1, 1}},
    {{1, 1, 1, 3}, {5, 3, 3, 3}, 1, 1},
    {{1, 1, 1, 17}, {18, 17, 3, 3}, 1, 1},
    {{1, 37, 45, 3}, {8, 3, 7, 7}, 2, 3},
    {{1, 16, 24, 3}, {96, 3, 7, 7}, 2, 3},
    {{1, 23, 30, 6}, {7, 6, 5, 5}, 2, 2},
    {{1, 24, 29, 96}, {33, 96, 5, 5}, 2, 2},
    {{2, 19, 27, 5}, {9, 5, 3, 3}, 1, 1},
    {{3, 8, 9, 16}, {16, 16, 3, 3}, 1, 1},
    {{1, 14, 21, 64}, {64, 64, 3, 3}, 1, 1},
    {{1, 14, 21, 32}, {18, 32, 1, 1}},
    {{2, 14, 21, 17}, {36, 17, 1, 1}},
    {{1, 13, 7, 3}, {4, 3, 3, 5}, 1, 2},
    {{1, 9, 40, 16}, {16, 16, 1, 3}, 1, 0},
    {{1, 50, 1, 2}, {3, 2, 3, 1}, 2, 0},
    // Strides that leave source cells without a window: their gradient is 0.
    {{1, 12, 12, 8}, {8, 8, 3, 3}, 3, 0},
    {{1, 13, 14, 8}, {8, 8, 3, 3}, 4, 0},
    {{1, 11, 10, 4}, {5, 4, 1, 1}, 3, 0},
    {{1, 12, 12, 8}, {24, 8, 2, 2}, 2, 1},
    {{1, 7, 5, 3}, {4, 3, 3, 3}, 1, 4},  // more padding than kernel
    {{1, 20, 20, 256}, {16, 256, 3, 3}, 1, 1},
};

// Small enough for differences at every element.
const Case toys[] = {{{1, 1, 1, 1}, {1, 1, 1, 1}},       {{1, 5, 4, 2}, {3, 2, 3, 3}, 1, 1},
                     {{2, 6, 7, 3}, {2, 3, 3, 2}, 2, 1}, {{1, 9, 8, 1}, {2, 1, 7, 7}, 2, 3},
                     {{1, 8, 7, 2}, {2, 2, 2, 2}, 3, 0}, {{1, 3, 1, 4}, {5, 4, 1, 1}}};

Shape result_of(const Case& c) {
  return infer(Conv2d{c.stride, c.pad, {}}, std::vector<TensorSpec>{{c.src}, {c.weight}, {{c.weight[0]}}},
               "test")[0]
      .shape;
}

Conv2dBackwardData data_op(const Case& c) { return {c.stride, c.pad, c.src[1], c.src[2]}; }
Conv2dBackwardWeight weight_op(const Case& c, bool accumulate) {
  return {c.stride, c.pad, c.weight[2], c.weight[3], accumulate};
}

// The tiles of both products.
double work(const Case& c) {
  const Shape d = result_of(c);
  const std::int64_t taps = c.weight[2] * c.weight[3], pixels = d[0] * d[1] * d[2];
  return tiled_work(c.src.elements() / c.src[3], c.src[3], d[3] * taps) +
         tiled_work(d[3], c.src[3] * taps, pixels);
}

struct Inputs {
  Tensor src, weight, d_dst;
};

template <class T>
reference::Conv2dGradients<T> expected_of(const Case& c, const Inputs& in) {
  return reference::conv2d_backward<T>(c.stride, c.pad, c.src, in.src.as<float>(), c.weight,
                                       in.weight.as<float>(), in.d_dst.spec.shape, in.d_dst.as<float>());
}

}  // namespace

TEST_CASE("conv2d_backward: sums of small integers are exact", "[conv2d]") {
  for (const Case& c : affordable(cases, work, text)) {
    FRCNN_CASE(text(c));
    const Inputs in{integers(c.src, 7, 1), integers(c.weight, 7, 2), integers(result_of(c), 7, 3)};
    const auto expected = expected_of<double>(c, in);
    for (const int threads : {1, 2}) {
      CHECK(max_error(run_op(data_op(c), {in.d_dst, in.weight}, threads)[0].as<float>(), expected.src) == 0);
      const std::vector<Tensor> got = run_op(weight_op(c, false), {in.src, in.d_dst}, threads);
      CHECK(max_error(got[0].as<float>(), expected.weight) == 0);
      CHECK(max_error(got[1].as<float>(), expected.bias) == 0);
    }
  }
}

TEST_CASE("conv2d_backward: weight gradients are added to what is there when asked", "[conv2d]") {
  for (const Case& c : affordable(cases, work, text)) {
    FRCNN_CASE(text(c));
    const Inputs in{integers(c.src, 7, 1), integers(c.weight, 7, 2), integers(result_of(c), 7, 3)};
    const Tensor weight = integers(c.weight, 99, 4), bias = integers({c.weight[0]}, 99, 5);
    auto expected = expected_of<double>(c, in);
    for (std::size_t i = 0; i < expected.weight.size(); ++i)
      expected.weight[i] += static_cast<double>(weight.as<float>()[i]);
    for (std::size_t i = 0; i < expected.bias.size(); ++i)
      expected.bias[i] += static_cast<double>(bias.as<float>()[i]);
    const std::vector<Tensor> got = run_op(weight_op(c, true), {in.src, in.d_dst}, 2, {weight, bias});
    CHECK(max_error(got[0].as<float>(), expected.weight) == 0);
    CHECK(max_error(got[1].as<float>(), expected.bias) == 0);
  }
}

TEST_CASE("conv2d_backward: at most twice the error of plain float loops", "[conv2d]") {
  ErrorTally bias;  // of all cases together: each has few of them
  for (const Case& c : affordable(cases, work, text)) {
    FRCNN_CASE(text(c));
    ErrorTally data, weight;
    for (unsigned round = 0; round < rounds_for({std::min(c.src.elements(), c.weight.elements())}); ++round) {
      const Inputs in{uniform(c.src, 0, 1, 3 * round + 4), uniform(c.weight, -1, 1, 3 * round + 5),
                      uniform(result_of(c), -1, 1, 3 * round + 6)};
      const auto plain = expected_of<float>(c, in);
      const auto exact = expected_of<double>(c, in);
      data.add(run_op(data_op(c), {in.d_dst, in.weight}, 2)[0].as<float>(), plain.src, exact.src);
      const std::vector<Tensor> got = run_op(weight_op(c, false), {in.src, in.d_dst}, 2);
      weight.add(got[0].as<float>(), plain.weight, exact.weight);
      bias.add(got[1].as<float>(), plain.bias, exact.bias);
    }
    data.check();
    weight.check();
  }
  bias.check();
}

TEST_CASE("conv2d_backward: agrees with differences of the forward pass", "[conv2d]") {
  ErrorTally bias;
  for (const Case& c : toys) {
    FRCNN_CASE(text(c));
    ErrorTally data, weight;
    for (unsigned round = 0; round < 20; ++round) {
      const Inputs in{on_grid(c.src, -1, 1, 4 * round + 1), on_grid(c.weight, -1, 1, 4 * round + 2),
                      uniform(result_of(c), -1, 1, 4 * round + 3)};
      const Tensor at = on_grid({c.weight[0]}, -1, 1, 4 * round + 4);
      const auto differences = [&](const Tensor& by, const auto& forward) {
        return central_differences(by.as<float>(), in.d_dst.as<float>(), forward);
      };
      const auto forward = [&](std::span<const float> src, std::span<const float> w,
                               std::span<const float> b) {
        return reference::conv2d<double>(Conv2d{c.stride, c.pad, {}}, c.src, src, c.weight, w, b);
      };
      const auto src = in.src.as<float>(), w = in.weight.as<float>(), b = at.as<float>();
      const auto plain = expected_of<float>(c, in);
      data.add(run_op(data_op(c), {in.d_dst, in.weight})[0].as<float>(), plain.src,
               differences(in.src, [&](std::span<const float> x) { return forward(x, w, b); }));
      const std::vector<Tensor> got = run_op(weight_op(c, false), {in.src, in.d_dst});
      weight.add(got[0].as<float>(), plain.weight,
                 differences(in.weight, [&](std::span<const float> x) { return forward(src, x, b); }));
      bias.add(got[1].as<float>(), plain.bias,
               differences(at, [&](std::span<const float> x) { return forward(src, w, x); }));
    }
    data.check();
    weight.check();
  }
  bias.check();
}
