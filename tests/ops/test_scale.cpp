#include "op_runner.h"
#include "reference/scale.h"

using namespace frcnn;
using namespace frcnn::test;

TEST_CASE("scale: NaN and infinities stay", "[scale]") {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const Tensor got = run_op_any_threads(Scale{-0.5f}, {f32({4}, {std::nanf(""), infinity, -infinity, 3e38f})})[0];
  const auto v = got.as<float>();
  CHECK(std::isnan(v[0]));
  CHECK((v[1] == -infinity && v[2] == infinity && v[3] == -1.5e38f));
}

TEST_CASE("scale: one rounding", "[scale]") {
  for (const Shape& shape : {Shape{1}, Shape{300, 64}, Shape{2, 5, 7, 17}, Shape{0, 4}}) {
    for (const float factor : {0.5f, -3.0f, 0.1f}) {
      FRCNN_CASE("scale " + to_string(shape) + " by " + std::to_string(factor));
      const Tensor src = uniform(shape, -1, 1, 1);
      const std::vector<Tensor> got = run_op_any_threads(Scale{factor}, {src});
      CHECK(max_error(got[0].as<float>(), reference::scale<float>(factor, src.as<float>())) == 0);
      check_error(got[0].as<float>(), reference::scale<float>(factor, src.as<float>()),
                  reference::scale<double>(factor, src.as<float>()));
    }
  }
}
