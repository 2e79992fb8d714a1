#include <cfloat>
#include <limits>

#include "op_runner.h"
#include "reference/max_pool.h"

using namespace frcnn;
using namespace frcnn::test;

TEST_CASE("max_pool: exact", "[max_pool]") {
  struct Case {
    Shape shape;
    int kernel, stride, pad;
  };
  const Case cases[] = {
      Case{{1, 1, 1, 1}, 1, 1, 0},    Case{{1, 37, 45, 4}, 2, 2, 0},  Case{{2, 38, 44, 3}, 2, 2, 0},
      Case{{1, 37, 45, 64}, 3, 2, 1}, Case{{2, 22, 30, 17}, 3, 2, 1}, Case{{1, 18, 25, 1}, 3, 2, 0},
      Case{{1, 7, 8, 2}, 2, 2, 1},    Case{{1, 1, 1, 5}, 3, 2, 1},    Case{{1, 1, 20, 33}, 3, 1, 1},
      Case{{1, 20, 1, 8}, 5, 3, 2},   Case{{1, 10, 10, 96}, 2, 3, 0}, Case{{1, 9, 9, 16}, 9, 1, 0}};
  const auto work = [](const Case& c) {
    return static_cast<double>(c.shape.elements()) * c.kernel * c.kernel / (c.stride * c.stride);
  };
  for (const Case& c : affordable(cases, work, [](const Case& one) { return to_string(one.shape); })) {
    for (const Rounding rounding : {Rounding::ceil, Rounding::floor}) {
      const MaxPool op{c.kernel, c.stride, c.pad, rounding};
      FRCNN_CASE("max_pool " + to_string(c.shape) + ", kernel " + std::to_string(c.kernel) + ", stride " +
                 std::to_string(c.stride) + ", pad " + std::to_string(c.pad) +
                 (rounding == Rounding::ceil ? ", ceil" : ", floor"));
      const Tensor src = uniform(c.shape, -3, -1, 1);  // below zero: padding must not win
      const std::vector<float> expected = reference::max_pool(op, c.shape, src.as<float>());
      const std::vector<Tensor> got = run_op_any_threads(op, {src});
      CHECK(max_error(got[0].as<float>(), expected) == 0);
    }
  }
}

TEST_CASE("max_pool: a NaN never replaces a number", "[max_pool]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const std::vector<Tensor> got = run_op_any_threads(
      MaxPool{2, 2, 0, Rounding::ceil},
      {f32({1, 2, 6, 1}, {nan, 1, nan, nan, -infinity, -infinity, 2, nan, nan, nan, -infinity, 5})});
  CHECK(got[0].as<float>()[0] == 2);
  CHECK(got[0].as<float>()[1] == -FLT_MAX);
  CHECK(got[0].as<float>()[2] == 5);
}
