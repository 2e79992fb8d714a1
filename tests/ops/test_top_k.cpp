#include <fmt/format.h>

#include "op_runner.h"
#include "reference/top_k.h"

using namespace frcnn;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

// Runs the op on `scores` [N,M] with boxes that number their entry, and compares every image with the
// reference.
void check(const TopK& op, std::int64_t batch, const std::vector<float>& scores) {
  const auto entries = static_cast<std::int64_t>(scores.size()) / batch;
  std::vector<float> boxes;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    for (int k = 0; k < 4; ++k) boxes.push_back(static_cast<float>(4 * i) + static_cast<float>(k));
  }
  const auto out = test::run_op_any_threads(
      op, {test::f32({batch, entries, 4}, boxes), test::f32({batch, entries}, scores)});
  const auto capacity = static_cast<std::size_t>(out[1].spec.shape[1]);
  for (std::size_t n = 0; n < static_cast<std::size_t>(batch); ++n) {
    const auto m = static_cast<std::size_t>(entries);
    const auto want = reference::top_k(std::span(scores).subspan(n * m, m), op.k);
    REQUIRE(out[2].as<std::int32_t>()[n] == static_cast<std::int32_t>(want.size()));
    std::vector<float> want_boxes(capacity * 4, 0.0f), want_scores(capacity, 0.0f);
    for (std::size_t i = 0; i < want.size(); ++i) {
      want_scores[i] = scores[n * m + want[i]];
      std::copy_n(boxes.begin() + static_cast<std::ptrdiff_t>((n * m + want[i]) * 4), 4,
                  want_boxes.begin() + static_cast<std::ptrdiff_t>(i * 4));
    }
    const auto got_boxes = out[0].as<float>().subspan(n * capacity * 4, capacity * 4);
    const auto got_scores = out[1].as<float>().subspan(n * capacity, capacity);
    CHECK(std::vector<float>(got_boxes.begin(), got_boxes.end()) == want_boxes);
    CHECK(std::vector<float>(got_scores.begin(), got_scores.end()) == want_scores);
  }
}

std::vector<float> numbers(std::size_t count, unsigned salt, float step) {
  const auto t = test::uniform({static_cast<std::int64_t>(count)}, 0, 1, salt);
  std::vector<float> v(t.as<float>().begin(), t.as<float>().end());
  if (step > 0) {
    for (float& x : v) x = std::floor(x / step) * step;  // many equal ones
  }
  return v;
}

}  // namespace

TEST_CASE("top_k agrees with a stable sort") {
  for (const std::int64_t k : {-1, 0, 1, 2, 7, 99, 100, 101, 5000}) {
    for (const float step : {0.0f, 0.25f, 0.02f}) {
      FRCNN_CASE(fmt::format("k {} step {}", k, step));
      check({k}, 1, numbers(100, 1, step));
      check({k}, 2, numbers(202, 2, step));
      check({k}, 3, numbers(3, 3, step));
    }
  }
  check({6000}, 1, numbers(21546, 4, 0));
  check({6000}, 1, numbers(21546, 5, 0.001f));
}

TEST_CASE("top_k with equal, negative and filtered scores") {
  check({5}, 1, std::vector<float>(30, 0.5f));
  check({0}, 1, {-1.5f, 2, -0.0f, 0.0f, -1e-45f, 1e-45f, 3e38f, -3e38f});
  check({3}, 2, {-infinity, -infinity, -infinity, -infinity, 1, -infinity, 2, 3});
  check({3}, 1, std::vector<float>(9, -infinity));
  check({3}, 1, {nan_value, 1, -nan_value, -infinity, infinity, nan_value});
  check({1}, 1, {nan_value});
  check({1}, 1, {0.25f});
}

TEST_CASE("top_k of no candidates at all") {
  const auto out = test::run_op(TopK{6}, {test::f32({1, 0, 4}, {}), test::f32({1, 0}, {})});
  CHECK(out[2].as<std::int32_t>()[0] == 0);
}
