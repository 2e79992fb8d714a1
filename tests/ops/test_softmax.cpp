#include <limits>

#include "op_runner.h"
#include "reference/softmax.h"

using namespace frcnn;
using namespace frcnn::test;

TEST_CASE("softmax: at most twice the error of plain float loops", "[softmax]") {
  struct Case {
    Shape shape;
    int groups;
  };
  for (const Case& c : {Case{{1, 1}, 1}, Case{{300, 21}, 1}, Case{{7, 2}, 1}, Case{{1, 38, 63, 18}, 9},
                        Case{{2, 5, 7, 24}, 12}, Case{{1, 1, 1, 2}, 1}, Case{{3, 4, 1, 15}, 5},
                        Case{{4, 1000}, 1}, Case{{0, 21}, 1}}) {
    for (const float range : {1.0f, 30.0f}) {
      FRCNN_CASE("softmax " + to_string(c.shape) + ", groups " + std::to_string(c.groups));
      const auto channels = static_cast<std::size_t>(c.shape[c.shape.rank - 1]),
                 groups = static_cast<std::size_t>(c.groups);
      const Softmax op{c.groups};
      ErrorTally tally;
      for (unsigned round = 0; round < rounds_for(c.shape); ++round) {
        const Tensor src = uniform(c.shape, -range, range, round + 1);
        const std::vector<Tensor> got = round == 0 ? run_op_any_threads(op, {src}) : run_op(op, {src});
        tally.add(got[0].as<float>(), reference::softmax<float>(channels, groups, src.as<float>()),
                  reference::softmax<double>(channels, groups, src.as<float>()));
      }
      tally.check();
    }
  }
}

TEST_CASE("softmax: large values do not overflow, a NaN or an infinity shows", "[softmax]") {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<Tensor> got = run_op_any_threads(
      Softmax{1}, {f32({5, 2}, {3e38f, 3e38f, -3e38f, 3e38f, 1.0f, nan, infinity, 1.0f, -infinity, 1.0f})});
  const auto p = got[0].as<float>();
  CHECK(p[0] == 0.5f);
  CHECK(p[1] == 0.5f);
  CHECK(p[2] == 0.0f);
  CHECK(p[3] == 1.0f);
  CHECK(std::isnan(p[4]));
  CHECK(std::isnan(p[5]));
  CHECK(std::isnan(p[6]));
  CHECK(p[8] == 0.0f);
  CHECK(p[9] == 1.0f);
}
