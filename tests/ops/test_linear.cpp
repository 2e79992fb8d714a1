#include <string>

#include "frcnn/error.h"
#include "op_runner.h"
#include "reference/linear.h"

using namespace frcnn;
using namespace frcnn::test;

namespace {

struct Case {
  Shape src;
  std::int64_t outputs;
  bool relu = false;
  float scale = 1.0f;
};

const Case cases[] = {
    {{1, 1}, 1},
    {{13, 49}, 21},
    {{300, 64}, 84, true},
    {{7, 1000}, 5, true, 0.5f},
    {{1, 17}, 300},
    {{3, 2, 5, 7}, 11},
    {{300, 7, 7, 32}, 64, true},
    {{5, 6, 6, 24}, 65, true, 0.5f},
    {{2, 1, 1, 1}, 3},
    {{64, 1, 9, 16}, 21},
    {{1, 7, 7, 512}, 33, false, 2.0f},
};

std::string text(const Case& c) {
  return "linear " + to_string(c.src) + " to " + std::to_string(c.outputs) + (c.relu ? ", relu" : "") +
         ", scale " + std::to_string(c.scale);
}

double work(const Case& c) { return tiled_work(c.src[0], c.outputs, c.src.row()); }

}  // namespace

TEST_CASE("linear: sums of small integers are exact", "[linear]") {
  for (const Case& c : affordable(cases, work, text)) {
    FRCNN_CASE(text(c));
    const Linear op{{c.relu, c.scale}};
    const Shape shape{c.outputs, c.src.row()};
    const Tensor src = integers(c.src, 7, 1), weight = integers(shape, 7, 2),
                 bias = integers({c.outputs}, 50, 3);
    const auto expected =
        reference::linear<double>(op, c.src, src.as<float>(), shape, weight.as<float>(), bias.as<float>());
    for (const int threads : {1, 2}) {
      CHECK(max_error(run_op(op, {src, weight, bias}, threads)[0].as<float>(), expected) == 0);
    }
  }
}

TEST_CASE("linear: at most twice the error of plain float loops", "[linear]") {
  for (const Case& c : affordable(cases, work, text)) {
    FRCNN_CASE(text(c));
    const Linear op{{c.relu, c.scale}};
    const Shape shape{c.outputs, c.src.row()};
    ErrorTally tally;
    for (unsigned round = 0; round < rounds_for({c.src[0], c.outputs}); ++round) {
      const Tensor src = uniform(c.src, 0, 1, 3 * round + 4), weight = uniform(shape, -1, 1, 3 * round + 5);
      const Tensor bias = uniform({c.outputs}, -1, 1, 3 * round + 6);
      const auto run = [&]<class T>(T) {
        return reference::linear<T>(op, c.src, src.as<float>(), shape, weight.as<float>(), bias.as<float>());
      };
      tally.add(run_op(op, {src, weight, bias}, 2)[0].as<float>(), run(0.0f), run(0.0));
    }
    tally.check();
  }
}

TEST_CASE("linear: no rows, nothing to do", "[linear]") {
  FRCNN_CASE("linear of no rows");
  for (const Shape& src : {Shape{0, 49}, Shape{0, 7, 7, 1}}) {
    const std::vector<Tensor> got =
        run_op(Linear{{true, 1.0f}},
               {Tensor({src, DType::f32}), uniform({21, 49}, -1, 1, 1), uniform({21}, -1, 1, 2)}, 2);
    CHECK(got[0].spec.shape == Shape{0, 21});
  }
}

TEST_CASE("linear: a NaN or an infinity stays in its row, however many sums are split", "[linear]") {
  const float bad_values[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()};
  const auto work = [](const Shape& shape) { return tiled_work(shape[0], 9, shape[1]); };
  const auto name = [](const Shape& shape) { return "linear with a NaN, " + to_string(shape); };
  const Shape shapes[] = {{5, 33}, {3, 2048}};
  for (const Shape& shape : affordable(shapes, work, name)) {
    FRCNN_CASE(name(shape));
    const Tensor weight = integers({9, shape[1]}, 7, 2), bias = integers({9}, 50, 3);
    Tensor src = integers(shape, 7, 1);
    const Tensor clean = run_op(Linear{}, {src, weight, bias}, 2)[0];
    for (const float bad : bad_values) {
      src.as<float>()[static_cast<std::size_t>(shape[1] + shape[1] / 2)] = bad;
      Tensor ones = weight;
      for (float& w : ones.as<float>()) w = std::max(std::abs(w), 1.0f);
      const Tensor got = run_op(Linear{}, {src, ones, bias}, 2)[0];
      const Tensor others = run_op(Linear{}, {src, weight, bias}, 2)[0];
      for (std::size_t i = 0; i < got.as<float>().size(); ++i) {
        if (i / 9 == 1) {
          CHECK_FALSE(std::isfinite(got.as<float>()[i]));
        } else {
          CHECK(others.as<float>()[i] == clean.as<float>()[i]);
        }
      }
    }
  }
}

#if !defined(FRCNN_TEST_CUDA)
TEST_CASE("linear: pooling in the epilogue is refused", "[linear]") {
  const std::vector<TensorSpec> in{{{2, 4}}, {{5, 4}}, {{5}}}, out{{{2, 5}}};
  try {
    cpu::prepare(Linear{{true, 1.0f, true}}, KernelSpec{in, out}, cpu::Settings{});
    FAIL("not refused");
  } catch (const Error& e) {
    CHECK(e.code() == ErrorCode::unsupported);
    CHECK(std::string(e.what()).find("linear") != std::string::npos);
    CHECK(std::string(e.what()).find("max_pool_2x2") != std::string::npos);
  }
}
#endif
