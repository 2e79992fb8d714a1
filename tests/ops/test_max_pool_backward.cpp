#include <limits>

#include "central_differences.h"
#include "op_runner.h"
#include "reference/max_pool_backward.h"

using namespace frcnn;
using namespace frcnn::test;

namespace {

struct Case {
  Shape shape;
  int kernel, stride, pad;
};

const Case cases[] = {{{1, 1, 1, 1}, 1, 1, 0},    {{1, 37, 45, 4}, 2, 2, 0},  {{2, 38, 44, 3}, 2, 2, 0},
                      {{1, 37, 45, 64}, 3, 2, 1}, {{2, 22, 30, 17}, 3, 2, 1}, {{1, 18, 25, 1}, 3, 2, 0},
                      {{1, 7, 8, 2}, 2, 2, 1},    {{1, 1, 1, 5}, 3, 2, 1},    {{1, 1, 20, 33}, 3, 1, 1},
                      {{1, 20, 1, 8}, 5, 3, 2},   {{1, 10, 10, 96}, 2, 3, 0}, {{1, 9, 9, 16}, 9, 1, 0},
                      {{1, 17, 18, 2}, 16, 5, 7}};

std::string text(const Case& c) {
  return "max_pool_backward " + to_string(c.shape) + ", kernel " + std::to_string(c.kernel) + ", stride " +
         std::to_string(c.stride) + ", pad " + std::to_string(c.pad);
}

MaxPool pool_of(const Case& c, Rounding rounding) { return {c.kernel, c.stride, c.pad, rounding, true}; }

std::vector<Tensor> backward(const Case& c, const MaxPool& pool, const Tensor& d_dst, const Tensor& argmax) {
  return run_op_any_threads(MaxPoolBackward{pool, c.shape[1], c.shape[2]}, {d_dst, argmax});
}

}  // namespace

TEST_CASE("max_pool: the saved maxima are the first of their windows", "[max_pool]") {
  const auto work = [](const Case& c) {
    return static_cast<double>(c.shape.elements()) * c.kernel * c.kernel / (c.stride * c.stride);
  };
  for (const Case& c : affordable(cases, work, text)) {
    for (const Rounding rounding : {Rounding::ceil, Rounding::floor}) {
      const MaxPool op = pool_of(c, rounding);
      FRCNN_CASE(text(c));
      const Tensor src = integers(c.shape, 2, 1);  // many ties
      const std::vector<Tensor> got = run_op_any_threads(op, {src});
      CHECK(max_error(got[0].as<float>(), reference::max_pool(op, c.shape, src.as<float>())) == 0);
      CHECK(max_error(got[1].as<std::uint8_t>(), reference::max_pool_argmax(op, c.shape, src.as<float>())) ==
            0);
    }
  }
}

TEST_CASE("max_pool_backward: exact", "[max_pool]") {
  const auto work = [](const Case& c) {
    return static_cast<double>(c.shape.elements()) * c.kernel * c.kernel / (c.stride * c.stride);
  };
  for (const Case& c : affordable(cases, work, text)) {
    for (const Rounding rounding : {Rounding::ceil, Rounding::floor}) {
      const MaxPool op = pool_of(c, rounding);
      FRCNN_CASE(text(c));
      const std::vector<Tensor> forward = run_op(op, {integers(c.shape, 2, 1)});
      const Tensor d_dst = uniform(forward[0].spec.shape, -1, 1, 2);
      const auto expected =
          reference::max_pool_backward(op, c.shape, d_dst.as<float>(), forward[1].as<std::uint8_t>());
      const std::vector<Tensor> got = backward(c, op, d_dst, forward[1]);
      CHECK(got[0].spec.shape == c.shape);
      CHECK(max_error(got[0].as<float>(), expected) == 0);
    }
  }
}

TEST_CASE("max_pool_backward: agrees with differences of the forward pass", "[max_pool]") {
  for (const Case& c :
       {Case{{1, 5, 7, 2}, 2, 2, 0}, Case{{2, 6, 5, 1}, 3, 2, 1}, Case{{1, 4, 4, 3}, 3, 1, 1}}) {
    FRCNN_CASE(text(c));
    const MaxPool op = pool_of(c, Rounding::ceil);
    const Tensor src = distinct(c.shape, 1);
    const std::vector<Tensor> forward = run_op(op, {src});
    const Tensor d_dst = integers(forward[0].spec.shape, 9, 2);
    const auto exact = central_differences(src.as<float>(), d_dst.as<float>(), [&](std::span<const float> x) {
      return reference::max_pool(op, c.shape, x);
    });
    CHECK(max_error(backward(c, op, d_dst, forward[1])[0].as<float>(), exact) < 1e-9);
  }
}

TEST_CASE("max_pool: where a window holds no number its first cell is named", "[max_pool]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const Tensor src =
      f32({1, 2, 6, 1}, {nan, 1, nan, nan, -infinity, -infinity, 2, nan, nan, nan, -infinity, 5});
  const MaxPool op{2, 2, 0, Rounding::ceil, true};
  const std::vector<Tensor> got = run_op_any_threads(op, {src});
  CHECK(max_error(got[1].as<std::uint8_t>(), std::vector<int>{2, 0, 3}) == 0);
  // In the corner of a padded map the first cell is not the window's first place.
  const MaxPool padded{3, 2, 1, Rounding::ceil, true};
  const std::vector<Tensor> corner = run_op_any_threads(padded, {f32({1, 1, 1, 1}, {nan})});
  CHECK(corner[1].as<std::uint8_t>()[0] == 4);
  const Tensor d_dst = f32({1, 1, 1, 1}, {3});
  CHECK(run_op(MaxPoolBackward{padded, 1, 1}, {d_dst, corner[1]})[0].as<float>()[0] == 3);
}
