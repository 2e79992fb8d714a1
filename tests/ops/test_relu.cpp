#include <limits>

#include "op_runner.h"
#include "reference/relu.h"

using namespace frcnn;
using namespace frcnn::test;

TEST_CASE("relu: exact", "[relu]") {
  for (const Shape& shape : {Shape{1}, Shape{3, 7}, Shape{1, 1, 1, 1}, Shape{2, 5, 7, 17}, Shape{0, 4}}) {
    FRCNN_CASE("relu " + to_string(shape));
    const Tensor src = uniform(shape, -1, 1, 1);
    CHECK(max_error(run_op_any_threads(Relu{}, {src})[0].as<float>(),
                    reference::relu<double>(src.as<float>())) == 0);
  }
}

TEST_CASE("relu: zeros, infinities and NaN", "[relu]") {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<Tensor> got =
      run_op_any_threads(Relu{}, {f32({5}, {-0.0f, infinity, -infinity, nan, 1e-45f})});
  const std::vector<float> expected{0.0f, infinity, 0.0f, 0.0f, 1e-45f};
  for (std::size_t i = 0; i < expected.size(); ++i) {
    CHECK(got[0].as<float>()[i] == expected[i]);
    CHECK_FALSE(std::signbit(got[0].as<float>()[i]));
  }
}
