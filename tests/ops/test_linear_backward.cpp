#include <string>

#include "central_differences.h"
#include "op_runner.h"
#include "reference/linear.h"
#include "reference/linear_backward.h"

using namespace frcnn;
using namespace frcnn::test;

namespace {

struct Case {
  Shape src;
  std::int64_t outputs;
};

const Case cases[] = {
    {{1, 1}, 1},       {{13, 49}, 21},       {{128, 64}, 84},      {{7, 1000}, 5},
    {{1, 17}, 300},    {{3, 2, 5, 7}, 11},   {{65, 7, 7, 32}, 64}, {{5, 6, 6, 24}, 65},
    {{2, 1, 1, 1}, 3}, {{64, 1, 9, 16}, 21}, {{1, 7, 7, 512}, 33}, {{300, 16}, 17},
};

std::string text(const Case& c) {
  return "linear_backward of " + to_string(c.src) + " to " + std::to_string(c.outputs);
}

double work(const Case& c) {
  return tiled_work(c.src[0], c.src.row(), c.outputs) + tiled_work(c.outputs, c.src.row(), c.src[0]);
}

LinearBackwardData data_op(const Case& c) {
  return c.src.rank == 4 ? LinearBackwardData{{c.src[1], c.src[2], c.src[3]}} : LinearBackwardData{};
}
Shape weight_shape(const Case& c) { return {c.outputs, c.src.row()}; }

struct Inputs {
  Tensor src, weight, d_dst;
};
Inputs whole_numbers(const Case& c) {
  return {integers(c.src, 7, 1), integers(weight_shape(c), 7, 2), integers({c.src[0], c.outputs}, 7, 3)};
}

template <class T>
reference::LinearGradients<T> expected_of(const Case& c, const Inputs& in) {
  return reference::linear_backward<T>(c.src, in.src.as<float>(), weight_shape(c), in.weight.as<float>(),
                                       in.d_dst.as<float>());
}

}  // namespace

TEST_CASE("linear_backward: sums of small integers are exact", "[linear]") {
  for (const Case& c : affordable(cases, work, text)) {
    FRCNN_CASE(text(c));
    const Inputs in = whole_numbers(c);
    const auto expected = expected_of<double>(c, in);
    for (const int threads : {1, 2}) {
      const Tensor data = run_op(data_op(c), {in.d_dst, in.weight}, threads)[0];
      CHECK(data.spec.shape == c.src);
      CHECK(max_error(data.as<float>(), expected.src) == 0);
      const std::vector<Tensor> got = run_op(LinearBackwardWeight{}, {in.src, in.d_dst}, threads);
      CHECK(max_error(got[0].as<float>(), expected.weight) == 0);
      CHECK(max_error(got[1].as<float>(), expected.bias) == 0);
    }
  }
}

TEST_CASE("linear_backward: weight gradients are added to what is there when asked", "[linear]") {
  for (const Case& c : affordable(cases, work, text)) {
    FRCNN_CASE(text(c));
    const Inputs in = whole_numbers(c);
    const Tensor weight = integers(weight_shape(c), 99, 4), bias = integers({c.outputs}, 99, 5);
    auto expected = expected_of<double>(c, in);
    for (std::size_t i = 0; i < expected.weight.size(); ++i)
      expected.weight[i] += static_cast<double>(weight.as<float>()[i]);
    for (std::size_t i = 0; i < expected.bias.size(); ++i)
      expected.bias[i] += static_cast<double>(bias.as<float>()[i]);
    const std::vector<Tensor> got = run_op(LinearBackwardWeight{true}, {in.src, in.d_dst}, 2, {weight, bias});
    CHECK(max_error(got[0].as<float>(), expected.weight) == 0);
    CHECK(max_error(got[1].as<float>(), expected.bias) == 0);
  }
}

TEST_CASE("linear_backward: at most twice the error of plain float loops", "[linear]") {
  ErrorTally bias;  // of all cases together: each has few of them
  for (const Case& c : affordable(cases, work, text)) {
    FRCNN_CASE(text(c));
    ErrorTally data, weight;
    for (unsigned round = 0; round < rounds_for({std::min(c.src.elements(), weight_shape(c).elements())});
         ++round) {
      const Inputs in{uniform(c.src, 0, 1, 3 * round + 4), uniform(weight_shape(c), -1, 1, 3 * round + 5),
                      uniform({c.src[0], c.outputs}, -1, 1, 3 * round + 6)};
      const auto plain = expected_of<float>(c, in);
      const auto exact = expected_of<double>(c, in);
      data.add(run_op(data_op(c), {in.d_dst, in.weight}, 2)[0].as<float>(), plain.src, exact.src);
      const std::vector<Tensor> got = run_op(LinearBackwardWeight{}, {in.src, in.d_dst}, 2);
      weight.add(got[0].as<float>(), plain.weight, exact.weight);
      bias.add(got[1].as<float>(), plain.bias, exact.bias);
    }
    data.check();
    weight.check();
  }
  bias.check();
}

TEST_CASE("linear_backward: agrees with differences of the forward pass", "[linear]") {
  for (const Case& c : {Case{{1, 1}, 1}, Case{{3, 7}, 5}, Case{{2, 2, 3, 4}, 3}}) {
    FRCNN_CASE(text(c));
    ErrorTally data, weight;
    for (unsigned round = 0; round < 20; ++round) {
      const Inputs in{on_grid(c.src, -1, 1, 3 * round + 1), on_grid(weight_shape(c), -1, 1, 3 * round + 2),
                      uniform({c.src[0], c.outputs}, -1, 1, 3 * round + 3)};
      const std::vector<float> bias(static_cast<std::size_t>(c.outputs));
      const auto forward = [&](std::span<const float> src, std::span<const float> w) {
        return reference::linear<double>(Linear{}, c.src, src, weight_shape(c), w, bias);
      };
      const auto top = in.d_dst.as<float>();
      const auto plain = expected_of<float>(c, in);
      data.add(run_op(data_op(c), {in.d_dst, in.weight})[0].as<float>(), plain.src,
               central_differences(in.src.as<float>(), top, [&](std::span<const float> x) {
                 return forward(x, in.weight.as<float>());
               }));
      weight.add(run_op(LinearBackwardWeight{}, {in.src, in.d_dst})[0].as<float>(), plain.weight,
                 central_differences(in.weight.as<float>(), top, [&](std::span<const float> x) {
                   return forward(in.src.as<float>(), x);
                 }));
    }
    data.check();
    weight.check();
  }
}

TEST_CASE("linear_backward: no rows give no gradient, and add none", "[linear]") {
  FRCNN_CASE("linear_backward of no rows");
  for (const Shape& src : {Shape{0, 49}, Shape{0, 7, 7, 1}}) {
    const Case c{src, 21};
    const Tensor nothing({Shape{0, 21}, DType::f32}), weight = uniform({21, 49}, -1, 1, 1),
                                                      bias = uniform({21}, -1, 1, 2);
    CHECK(run_op(data_op(c), {nothing, weight}, 2)[0].spec.shape == src);
    const Tensor rows({src, DType::f32});
    for (const Tensor& gradient : run_op(LinearBackwardWeight{}, {rows, nothing}, 2))
      for (const float v : gradient.as<float>()) CHECK(v == 0);
    const std::vector<Tensor> kept = run_op(LinearBackwardWeight{true}, {rows, nothing}, 2, {weight, bias});
    CHECK(same_bytes(kept, {weight, bias}));
  }
}
