#include <string>

#include "frcnn/error.h"
#include "op_runner.h"
#include "reference/conv2d.h"

using namespace frcnn;
using namespace frcnn::test;

namespace {

struct Case {
  Shape src, weight;
  int stride = 1, pad = 0;
  bool relu = false;
  float scale = 1.0f;
};

std::string text(const Case& c) {
  return "conv2d " + to_string(c.src) + " with " + to_string(c.weight) + ", stride " +
         std::to_string(c.stride) + ", pad " + std::to_string(c.pad) + (c.relu ? ", relu" : "") + ", scale " +
         std::to_string(c.scale);
}

const Case cases[] = {
    {{1, 1, 1, 1}, {1, 1, 1, 1}},
    {{1, 1, 1, 3}, {5, 3, 3, 3}, 1, 1},
    {{1, 1, 1, 17}, {18, 17, 3, 3}, 1, 1, true},
    {{1, 37, 45, 3}, {8, 3, 7, 7}, 2, 3, true},
    {{1, 36, 44, 3}, {96, 3, 7, 7}, 2, 3},
    {{1, 23, 30, 6}, {7, 6, 5, 5}, 2, 2, true},
    {{1, 24, 29, 96}, {33, 96, 5, 5}, 2, 2},
    {{2, 19, 27, 5}, {9, 5, 3, 3}, 1, 1, true},
    {{3, 8, 9, 16}, {16, 16, 3, 3}, 1, 1},
    {{1, 14, 21, 64}, {64, 64, 3, 3}, 1, 1, true},
    {{1, 14, 21, 32}, {18, 32, 1, 1}},
    {{2, 14, 21, 17}, {36, 17, 1, 1}, 1, 0, true},
    {{1, 13, 7, 3}, {4, 3, 3, 5}, 1, 2},
    {{1, 9, 40, 16}, {16, 16, 1, 3}, 1, 0, true},
    {{1, 50, 1, 2}, {3, 2, 3, 1}, 2, 0},
    {{1, 12, 12, 8}, {8, 8, 3, 3}, 3, 0},
    {{1, 12, 12, 8}, {24, 8, 2, 2}, 2, 1, true, 0.5f},
    {{1, 6, 7, 16}, {16, 16, 3, 3}, 1, 1, false, -2.0f},
    {{1, 20, 20, 256}, {16, 256, 3, 3}, 1, 1, true},
    // Large enough for Winograd where there is one.
    {{1, 38, 41, 256}, {32, 256, 3, 3}, 1, 1, true},
    {{2, 29, 26, 272}, {16, 272, 3, 3}, 1, 1, false, 0.5f},
};

Conv2d op_of(const Case& c) { return {c.stride, c.pad, {c.relu, c.scale, false}}; }

Shape result_of(const Case& c) {
  return infer(op_of(c), std::vector<TensorSpec>{{c.src}, {c.weight}, {{c.weight[0]}}}, "test")[0].shape;
}

double work(const Case& c) {
  const Shape out = result_of(c);
  return tiled_work(out.elements() / out[3], out[3], c.weight.row());
}

}  // namespace

TEST_CASE("conv2d: sums of small integers are exact", "[conv2d]") {
  for (const Case& c : affordable(cases, work, text)) {
    FRCNN_CASE(text(c));
    // Winograd multiplies by fractions, so its sums are not exact; the next test holds it.
    if (c.weight[1] >= 256 && c.src[1] > 20) continue;
    const Tensor src = integers(c.src, 7, 1), weight = integers(c.weight, 7, 2),
                 bias = integers({c.weight[0]}, 50, 3);
    const auto expected = reference::conv2d<double>(op_of(c), c.src, src.as<float>(), c.weight,
                                                    weight.as<float>(), bias.as<float>());
    for (const int threads : {1, 2}) {
      const std::vector<Tensor> got = run_op(op_of(c), {src, weight, bias}, threads);
      CHECK(max_error(got[0].as<float>(), expected) == 0);
    }
  }
}

TEST_CASE("conv2d: at most twice the error of plain float loops", "[conv2d]") {
  for (const Case& c : affordable(cases, work, text)) {
    FRCNN_CASE(text(c));
    ErrorTally tally;
    for (unsigned round = 0; round < rounds_for(result_of(c)); ++round) {
      const Tensor src = uniform(c.src, 0, 1, 3 * round + 4),
                   weight = uniform(c.weight, -1, 1, 3 * round + 5);
      const Tensor bias = uniform({c.weight[0]}, -1, 1, 3 * round + 6);
      const auto run = [&]<class T>(T) {
        return reference::conv2d<T>(op_of(c), c.src, src.as<float>(), c.weight, weight.as<float>(),
                                    bias.as<float>());
      };
      tally.add(run_op(op_of(c), {src, weight, bias}, 2)[0].as<float>(), run(0.0f), run(0.0));
    }
    tally.check();
  }
}

#if !defined(FRCNN_TEST_CUDA)
TEST_CASE("conv2d: a map of more pixels than oneDNN counts is refused", "[conv2d]") {
  const std::vector<TensorSpec> in{{{1, 65536, 65536, 3}}, {{64, 3, 7, 7}}, {{64}}};
  const std::vector<TensorSpec> out = infer(Conv2d{2, 3, {}}, in, "conv1");
  CHECK_THROWS_AS(cpu::prepare(Conv2d{2, 3, {}}, KernelSpec{in, out}, cpu::Settings{1}), Error);
}

TEST_CASE("conv2d: equal layouts are shared between image sizes, and threads alone do not change them",
          "[conv2d]") {
  const auto layout = [](std::int64_t height, int threads) {
    const std::vector<TensorSpec> in{{{1, height, 50, 64}}, {{64, 64, 3, 3}}, {{64}}},
        out{{{1, height, 50, 64}}};
    return cpu::prepare(Conv2d{1, 1, {true, 1.0f}}, KernelSpec{in, out}, cpu::Settings{threads})
        .packings.at(0)
        .layout;
  };
  CHECK(layout(38, 1) == layout(75, 1));
  CHECK(layout(38, 1) == layout(38, 2));
}

TEST_CASE("conv2d: pooling in the epilogue is refused, since no lowering for the CPU asks for it",
          "[conv2d]") {
  const std::vector<TensorSpec> in{{{1, 6, 8, 4}}, {{5, 4, 3, 3}}, {{5}}}, out{{{1, 3, 4, 5}}};
  try {
    cpu::prepare(Conv2d{1, 1, {true, 1.0f, true}}, KernelSpec{in, out}, cpu::Settings{});
    FAIL("not refused");
  } catch (const Error& e) {
    CHECK(e.code() == ErrorCode::unsupported);
    CHECK(std::string(e.what()).find("conv2d") != std::string::npos);
    CHECK(std::string(e.what()).find("max_pool_2x2") != std::string::npos);
  }
}
#endif
