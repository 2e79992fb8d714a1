#include "op_runner.h"
#include "reference/lrn.h"

using namespace frcnn;
using namespace frcnn::test;

TEST_CASE("lrn: at most twice the error of plain float loops", "[lrn]") {
  for (const LrnRegion region : {LrnRegion::within_channel, LrnRegion::across_channels}) {
    const Shape shapes[] = {{1, 1, 1, 1},   {2, 11, 13, 7},  {1, 15, 140, 96}, {1, 1, 33, 3},
                            {1, 40, 1, 17}, {1, 2, 2, 5000}, {3, 9, 8, 64}};
    const auto work = [](const Shape& shape) { return 25.0 * static_cast<double>(shape.elements()); };
    for (const Shape& shape : affordable(shapes, work, to_string)) {
      for (const int size : {1, 3, 5}) {
        for (const float beta : {0.75f, 0.5f, 1.3f}) {
          for (const float alpha : {5e-5f, 1.0f}) {
            if (shape[3] == 5000 && (beta != 0.75f || size != 3)) continue;
            const Lrn op{region, size, alpha, beta, 2.0f};
            FRCNN_CASE("lrn " + to_string(shape) +
                       (region == LrnRegion::within_channel ? " within" : " across") + ", size " +
                       std::to_string(size) + ", alpha " + std::to_string(alpha) + ", beta " +
                       std::to_string(beta));
            ErrorTally tally;
            for (unsigned round = 0; round < rounds_for(shape); ++round) {
              const Tensor src = uniform(shape, -20, 60, round + 1);
              const std::vector<Tensor> got = round == 0 ? run_op_any_threads(op, {src}) : run_op(op, {src});
              tally.add(got[0].as<float>(), reference::lrn<float>(op, shape, src.as<float>()),
                        reference::lrn<double>(op, shape, src.as<float>()));
            }
            tally.check();
          }
        }
      }
    }
  }
}

TEST_CASE("lrn: large and tiny values", "[lrn]") {
  const Shape shape{1, 1, 1, 4};
  const Tensor src = f32(shape, {1e12f, -1e9f, 1e-30f, 0.0f});
  for (const LrnRegion region : {LrnRegion::within_channel, LrnRegion::across_channels}) {
    const Lrn op{region, 3, 1.0f, 0.75f, 1.0f};
    const auto exact = reference::lrn<double>(op, shape, src.as<float>());
    const std::vector<Tensor> got = run_op_any_threads(op, {src});
    for (std::size_t i = 0; i < 4; ++i)
      CHECK(got[0].as<float>()[i] == Approx(exact[i]).epsilon(1e-6).margin(1e-40));
  }
}

TEST_CASE("lrn: a NaN or an infinity spoils what its window reaches, and nothing else", "[lrn]") {
  const Shape shape{1, 4, 5, 6};
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const LrnRegion region : {LrnRegion::within_channel, LrnRegion::across_channels}) {
      FRCNN_CASE(std::string("lrn of ") + (bad != bad ? "NaN" : "infinity"));
      const Lrn op{region, 3, 1.0f, 0.75f, 2.0f};
      Tensor src = uniform(shape, 1, 2, 1);
      const Tensor clean = run_op_any_threads(op, {src})[0];
      src.as<float>()[(1 * 5 + 2) * 6 + 3] = bad;  // y 1, x 2, channel 3
      const Tensor got = run_op_any_threads(op, {src})[0];
      for (int i = 0; i < 4 * 5 * 6; ++i) {
        const int c = i % 6, x = i / 6 % 5, y = i / 30;
        const bool reached = region == LrnRegion::within_channel
                                 ? c == 3 && std::abs(x - 2) <= 1 && std::abs(y - 1) <= 1
                                 : x == 2 && y == 1 && std::abs(c - 3) <= 1;
        const float v = got.as<float>()[static_cast<std::size_t>(i)], was = clean.as<float>()[static_cast<std::size_t>(i)];
        INFO("y " << y << " x " << x << " channel " << c);
        if (!reached) {
          CHECK(v == was);
        } else if (bad != bad || (c == 3 && x == 2 && y == 1)) {
          CHECK(std::isnan(v));
        } else {
          CHECK(v == 0);  // divided by an infinity
        }
      }
    }
  }
}
