#include <fmt/format.h>

#include "op_runner.h"
#include "reference/nms.h"

using namespace frcnn;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

// Corners on a quarter-pixel grid: areas are exact in float32 (see the reference).
std::vector<float> random_boxes(std::size_t count, unsigned salt, float extent = 200) {
  const auto random = test::uniform({static_cast<std::int64_t>(count), 4}, 0, 1, salt);
  std::vector<float> boxes;
  for (std::size_t i = 0; i < count; ++i) {
    const auto u = random.as<float>().subspan(i * 4, 4);
    const auto grid = [](float v) { return std::floor(v * 4) / 4; };
    const float x = grid(u[0] * extent), y = grid(u[1] * extent);
    boxes.insert(boxes.end(), {x, y, x + grid(u[2] * 100), y + grid(u[3] * 100)});
  }
  return boxes;
}

// `boxes` [N,K,4]; counts may be out of range on purpose.
void check(const Nms& op, std::int64_t batch, const std::vector<float>& boxes,
           const std::vector<std::int32_t>& counts) {
  const auto entries = static_cast<std::int64_t>(boxes.size()) / 4 / batch;
  std::vector<float> scores(boxes.size() / 4);
  for (std::size_t i = 0; i < scores.size(); ++i) scores[i] = 1.0f / static_cast<float>(i + 1);
  const auto out =
      test::run_op_any_threads(op, {test::f32({batch, entries, 4}, boxes),
                                    test::f32({batch, entries}, scores), test::i32({batch}, counts)});
  std::vector<float> want_rois, want_scores;
  for (std::int64_t n = 0; n < batch; ++n) {
    const auto valid = std::min<std::int64_t>(std::max(counts[static_cast<std::size_t>(n)], 0), entries);
    const auto start = static_cast<std::size_t>(n * entries);
    const auto image = std::span(boxes).subspan(start * 4, static_cast<std::size_t>(valid) * 4);
    const auto kept = reference::nms(reference::boxes_of(image), op.threshold, op.suppress,
                                     static_cast<std::size_t>(op.max_out));
    CHECK(out[2].as<std::int32_t>()[static_cast<std::size_t>(n)] == static_cast<std::int32_t>(kept.size()));
    for (std::size_t i = 0; i < static_cast<std::size_t>(op.max_out); ++i) {
      want_rois.push_back(static_cast<float>(n));
      for (std::size_t k = 0; k < 4; ++k)
        want_rois.push_back(i < kept.size() ? boxes[(start + kept[i]) * 4 + k] : 0.0f);
      want_scores.push_back(i < kept.size() ? scores[start + kept[i]] : 0.0f);
    }
  }
  CHECK(std::vector<float>(out[0].as<float>().begin(), out[0].as<float>().end()) == want_rois);
  CHECK(std::vector<float>(out[1].as<float>().begin(), out[1].as<float>().end()) == want_scores);
}

// How many of `boxes`, all valid, survive.
std::int32_t survivors(const Nms& op, const std::vector<float>& boxes) {
  const auto n = static_cast<std::int64_t>(boxes.size()) / 4;
  const auto out = test::run_op_any_threads(
      op, {test::f32({1, n, 4}, boxes), test::f32({1, n}, std::vector<float>(boxes.size() / 4, 1.0f)),
           test::i32({1}, {static_cast<std::int32_t>(n)})});
  return out[2].as<std::int32_t>()[0];
}

}  // namespace

TEST_CASE("nms agrees with the reference") {
  for (const float threshold : {0.0f, 0.3f, 0.5f, 0.7f, 1.0f}) {
    for (const Suppress rule : {Suppress::above, Suppress::at_or_above}) {
      for (const std::int64_t max_out : {1, 7, 16, 17, 300}) {
        FRCNN_CASE(
            fmt::format("threshold {} max_out {} rule {}", threshold, max_out, static_cast<int>(rule)));
        check({threshold, rule, max_out}, 1, random_boxes(1, 1), {1});
        check({threshold, rule, max_out}, 1, random_boxes(150, 2), {150});
        check({threshold, rule, max_out}, 2, random_boxes(120, 3), {60, 23});
      }
    }
  }
  check({0.7f, Suppress::above, 300}, 1, random_boxes(6000, 4, 900), {6000});
}

TEST_CASE("nms with no boxes, and with counts out of range") {
  check({}, 1, random_boxes(8, 5), {0});
  check({}, 2, random_boxes(8, 6), {0, 4});
  check({}, 2, random_boxes(8, 7), {-3, 1000});
}

TEST_CASE("nms of identical boxes keeps one") {
  std::vector<float> boxes;
  for (int i = 0; i < 100; ++i) boxes.insert(boxes.end(), {5, 6, 40, 50});
  check({0.7f, Suppress::above, 10}, 1, boxes, {100});
  CHECK(survivors({0.7f, Suppress::above, 10}, boxes) == 1);
  CHECK(survivors({1.0f, Suppress::above, 10}, boxes) == 10);  // an overlap of 1 is not above 1
  CHECK(survivors({1.0f, Suppress::at_or_above, 10}, boxes) == 1);
}

TEST_CASE("nms at an overlap of exactly the threshold") {
  const std::vector<float> boxes{0, 0, 9, 9, 0, 0, 4, 9};  // one half of the other
  CHECK(survivors({0.5f, Suppress::above, 10}, boxes) == 2);
  CHECK(survivors({0.5f, Suppress::at_or_above, 10}, boxes) == 1);
}

TEST_CASE("nms of inverted, huge and non-finite boxes") {
  check({0.3f, Suppress::above, 10}, 1, {50, 50, 10, 10, 50, 50, 10, 10, 0, 0, 100, 100, 20, 60, 40, 30},
        {4});
  const Nms op{0.5f, Suppress::above, 10};
  // Areas overflow: infinity over infinity is no overlap, so both stay.
  CHECK(survivors(op, {-3e38f, -3e38f, 3e38f, 3e38f, -3e38f, -3e38f, 3e38f, 3e38f}) == 2);
  CHECK(survivors(op, {nan_value, 0, 9, 9, 0, 0, 9, 9, nan_value, 0, 9, 9, 0, 0, 9, 9}) == 3);
  CHECK(survivors(op, {-infinity, -infinity, infinity, infinity, 0, 0, 9, 9}) == 2);
}
