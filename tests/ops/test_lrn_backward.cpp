#include "central_differences.h"
#include "op_runner.h"
#include "reference/lrn.h"
#include "reference/lrn_backward.h"

using namespace frcnn;
using namespace frcnn::test;

namespace {

std::string text(const Lrn& op, const Shape& shape) {
  return "lrn_backward " + to_string(shape) +
         (op.region == LrnRegion::within_channel ? " within" : " across") + ", size " +
         std::to_string(op.size) + ", alpha " + std::to_string(op.alpha) + ", beta " +
         std::to_string(op.beta);
}

}  // namespace

TEST_CASE("lrn_backward: at most twice the error of plain float loops", "[lrn]") {
  const Shape shapes[] = {{1, 1, 1, 1},   {2, 11, 13, 7}, {1, 15, 140, 96}, {1, 1, 33, 3},
                          {1, 40, 1, 17}, {1, 2, 2, 999}, {3, 9, 8, 64}};
  const auto work = [](const Shape& shape) { return 50.0 * static_cast<double>(shape.elements()); };
  for (const LrnRegion region : {LrnRegion::within_channel, LrnRegion::across_channels}) {
    for (const Shape& shape : affordable(shapes, work, to_string)) {
      for (const int size : {1, 3, 5}) {
        for (const float beta : {0.75f, 0.5f}) {
          const Lrn op{region, size, beta == 0.75f ? 5e-5f : 1.0f, beta, 2.0f};
          FRCNN_CASE(text(op, shape));
          ErrorTally tally;
          for (unsigned round = 0; round < std::min(rounds_for(shape), 100u); ++round) {
            const Tensor src = uniform(shape, -20, 60, 2 * round + 1),
                         d_dst = uniform(shape, -1, 1, 2 * round + 2);
            const auto got = round == 0 ? run_op_any_threads(LrnBackward{op}, {d_dst, src})
                                        : run_op(LrnBackward{op}, {d_dst, src});
            tally.add(got[0].as<float>(),
                      reference::lrn_backward<float>(op, shape, src.as<float>(), d_dst.as<float>()),
                      reference::lrn_backward<double>(op, shape, src.as<float>(), d_dst.as<float>()));
          }
          tally.check();
        }
      }
    }
  }
}

TEST_CASE("lrn_backward: agrees with differences of the forward pass", "[lrn]") {
  for (const LrnRegion region : {LrnRegion::within_channel, LrnRegion::across_channels}) {
    for (const Shape& shape : {Shape{1, 1, 1, 1}, Shape{2, 4, 3, 5}, Shape{1, 6, 1, 2}}) {
      for (const int size : {1, 3, 5}) {
        const Lrn op{region, size, 1.0f, 0.75f, 1.5f};
        FRCNN_CASE(text(op, shape));
        const Tensor src = on_grid(shape, -3, 3, 1), d_dst = uniform(shape, -1, 1, 2);
        const auto exact = central_differences(
            src.as<float>(), d_dst.as<float>(),
            [&](std::span<const float> x) { return reference::lrn<double>(op, shape, x); });
        const auto formula = reference::lrn_backward<double>(op, shape, src.as<float>(), d_dst.as<float>());
        CHECK(max_error(formula, exact) < 1e-6);  // the step's error of fourth order
        CHECK(max_error(run_op(LrnBackward{op}, {d_dst, src})[0].as<float>(), formula) < 1e-6);
      }
    }
  }
}

TEST_CASE("lrn_backward: large, tiny and non-finite values", "[lrn]") {
  const Shape shape{1, 1, 1, 4};
  const Tensor src = f32(shape, {1e12f, -1e9f, 1e-30f, 0.0f}), d_dst = f32(shape, {1, 2, 3, 4});
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const LrnRegion region : {LrnRegion::within_channel, LrnRegion::across_channels}) {
    const Lrn op{region, 3, 1.0f, 0.75f, 1.0f};
    const auto exact = reference::lrn_backward<double>(op, shape, src.as<float>(), d_dst.as<float>());
    const std::vector<Tensor> got = run_op_any_threads(LrnBackward{op}, {d_dst, src});
    for (std::size_t i = 0; i < 4; ++i)
      CHECK(got[0].as<float>()[i] == Approx(exact[i]).epsilon(1e-5).margin(1e-30));
    // What is not a number reaches its own gradient.
    const auto bad = run_op_any_threads(LrnBackward{op}, {d_dst, f32(shape, {1, nan, 1, 1})});
    CHECK(std::isnan(bad[0].as<float>()[1]));
    const auto top =
        run_op_any_threads(LrnBackward{op}, {f32(shape, {1, nan, 1, 1}), f32(shape, {1, 1, 1, 1})});
    CHECK(std::isnan(top[0].as<float>()[1]));
  }
}
