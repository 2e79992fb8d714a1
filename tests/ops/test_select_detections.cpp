#include <fmt/format.h>

#include "op_runner.h"
#include "reference/select_detections.h"

using namespace frcnn;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

struct Case {
  std::int64_t batch, per_image, classes;
  bool agnostic;  // one box per roi for every class
  float step;     // scores are multiples of it (ties); 0: all different
  std::vector<std::int32_t> counts;
  bool degenerate = false;  // with inverted boxes, boxes of no extent, and large ones
};

// Boxes on a quarter-pixel grid, so that overlaps are exact (reference/nms.h).
test::Tensor random_boxes(std::int64_t rows, std::int64_t boxes_per_row, unsigned salt) {
  test::Tensor t = test::uniform({rows, 4 * boxes_per_row}, 0, 60, salt);
  const auto v = t.as<float>();
  for (std::size_t i = 0; i < v.size(); ++i) {
    v[i] = std::floor(v[i] * 4) / 4;
    if (i % 4 >= 2) v[i] += v[i - 2];
  }
  return t;
}

test::Tensor random_scores(const Case& c, unsigned salt) {
  test::Tensor t = test::uniform({c.batch * c.per_image, c.classes}, 0, 1, salt);
  if (c.step > 0) {
    for (float& v : t.as<float>()) v = std::floor(v / c.step) * c.step;
  }
  return t;
}

void check(const SelectDetections& op, const Case& c) {
  const auto prob = random_scores(c, 1);
  auto boxes = random_boxes(c.batch * c.per_image, c.agnostic ? 1 : c.classes, 2);
  for (std::size_t i = 0; c.degenerate && i < boxes.as<float>().size() / 4; ++i) {
    float* const box = boxes.as<float>().data() + 4 * i;
    if (i % 4 == 1) std::swap(box[0], box[2]);
    if (i % 4 == 2) box[2] = box[0], box[3] = box[1];
    if (i % 4 == 3) box[0] = box[1] = -1024, box[2] = box[3] = 1023;  // its area is a power of two
  }
  const auto out = test::run_op_any_threads(op, {prob, boxes, test::i32({c.batch}, c.counts)});
  CHECK(out[2].as<std::int32_t>()[0] == 0);
  const auto capacity = static_cast<std::size_t>(out[0].spec.shape[1]);
  const auto m = static_cast<std::size_t>(c.per_image), k = static_cast<std::size_t>(c.classes);
  const std::size_t columns = c.agnostic ? 4 : 4 * k;
  std::vector<float> want;
  for (std::size_t n = 0; n < static_cast<std::size_t>(c.batch); ++n) {
    const auto rois = static_cast<std::size_t>(std::min<std::int64_t>(std::max(c.counts[n], 0), c.per_image));
    const auto image_boxes = boxes.as<float>().subspan(n * m * columns, rois * columns);
    const auto found =
        reference::select_detections(op, k, prob.as<float>().subspan(n * m * k, rois * k), image_boxes);
    CHECK(out[1].as<std::int32_t>()[n] == static_cast<std::int32_t>(found.size()));
    for (const auto& d : found) {
      want.insert(want.end(), {static_cast<float>(d.label), d.score});
      const std::size_t at = d.roi * columns + (c.agnostic ? 0 : 4 * d.label);
      want.insert(want.end(), image_boxes.begin() + static_cast<std::ptrdiff_t>(at),
                  image_boxes.begin() + static_cast<std::ptrdiff_t>(at + 4));
    }
    want.resize((n + 1) * capacity * 6, 0.0f);
  }
  CHECK(std::vector<float>(out[0].as<float>().begin(), out[0].as<float>().end()) == want);
}

// Rois far apart with the scores of class 1 given.
std::vector<test::Tensor> run_scores(const SelectDetections& op, const std::vector<float>& scores,
                                     std::int32_t count) {
  std::vector<float> prob, boxes;
  for (std::size_t r = 0; r < scores.size(); ++r) {
    prob.insert(prob.end(), {0.0f, scores[r]});
    const auto x = static_cast<float>(20 * r);
    boxes.insert(boxes.end(), {x, 0, x + 9, 9});
  }
  const auto n = static_cast<std::int64_t>(scores.size());
  return test::run_op_any_threads(
      op, {test::f32({n, 2}, prob), test::f32({n, 4}, boxes), test::i32({1}, {count})});
}

}  // namespace

TEST_CASE("select_detections agrees with the reference") {
  const std::vector<Case> cases{{1, 1, 2, false, 0, {1}},        {1, 40, 21, false, 0, {40}},
                                {1, 40, 5, false, 0.1f, {33}},   {2, 30, 4, false, 0.1f, {30, 11}},
                                {2, 30, 4, true, 0.2f, {0, 30}}, {3, 17, 3, true, 0, {17, -2, 99}}};
  for (const Case& c : cases) {
    for (const std::int64_t cap : {-1, 0, 1, 5, 20, 100000}) {
      for (const bool keep_ties : {true, false}) {
        for (const float threshold : {0.0f, 0.3f}) {
          FRCNN_CASE(
              fmt::format("N {} M {} C {} cap {} ties {}", c.batch, c.per_image, c.classes, cap, keep_ties));
          check({threshold, 0.3f, Suppress::above, cap, keep_ties}, c);
          check({threshold, 0.5f, Suppress::at_or_above, cap, keep_ties}, c);
        }
      }
    }
  }
}

TEST_CASE("select_detections of inverted, empty and large boxes") {
  for (const std::int64_t cap : {-1, 20})
    for (const bool agnostic : {false, true}) {
      FRCNN_CASE(fmt::format("degenerate boxes, cap {} agnostic {}", cap, agnostic));
      check({0.0f, 0.3f, Suppress::above, cap, true}, {2, 30, 4, agnostic, 0, {30, 11}, true});
    }
}

TEST_CASE("select_detections: the score threshold is strict, ties at the cap follow the option") {
  SelectDetections op;
  op.score_threshold = 0.5f;
  CHECK(run_scores(op, {0.5f, 0.75f, 0.25f}, 3)[1].as<std::int32_t>()[0] == 1);
  op.max_detections = 2;
  CHECK(run_scores(op, {0.75f, 0.75f, 0.9f, 0.75f}, 4)[1].as<std::int32_t>()[0] == 4);
  op.keep_ties = false;
  const auto out = run_scores(op, {0.75f, 0.75f, 0.9f, 0.75f}, 4);
  CHECK(out[1].as<std::int32_t>()[0] == 2);
  CHECK(out[0].as<float>()[0 * 6 + 2] == 40);  // the best one first
  CHECK(out[0].as<float>()[1 * 6 + 2] == 0);   // then the first of the equal ones
}

TEST_CASE("select_detections without rois") {
  CHECK(run_scores({}, {0.9f, 0.8f}, 0)[1].as<std::int32_t>()[0] == 0);
  const auto out =
      test::run_op(SelectDetections{}, {test::f32({0, 3}, {}), test::f32({0, 12}, {}), test::i32({1}, {0})});
  CHECK(out[1].as<std::int32_t>()[0] == 0);
  CHECK(out[2].as<std::int32_t>()[0] == 0);
}

TEST_CASE("select_detections of identical boxes keeps the lowest roi of each class") {
  std::vector<float> boxes, prob;
  for (int r = 0; r < 20; ++r) {
    boxes.insert(boxes.end(), {1, 2, 30, 40});
    prob.insert(prob.end(), {0.2f, 0.4f, 0.4f});
  }
  const auto out = test::run_op_any_threads(
      SelectDetections{}, {test::f32({20, 3}, prob), test::f32({20, 4}, boxes), test::i32({1}, {20})});
  CHECK(out[1].as<std::int32_t>()[0] == 2);
  CHECK(out[0].as<float>()[0] == 1);
  CHECK(out[0].as<float>()[6] == 2);
}

TEST_CASE("select_detections reports values that are not finite, in valid rows only") {
  for (const float bad : {nan_value, infinity, -infinity}) {
    CHECK(run_scores({}, {0.9f, bad, 0.8f}, 3)[2].as<std::int32_t>()[0] == 1);
    CHECK(run_scores({}, {0.9f, 0.8f, bad}, 2)[2].as<std::int32_t>()[0] == 0);
    for (const std::int32_t count : {1, 2}) {
      const auto out = test::run_op_any_threads(
          SelectDetections{}, {test::f32({2, 2}, {0.1f, 0.9f, 0.1f, 0.9f}),
                               test::f32({2, 4}, {0, 0, 9, 9, 0, bad, 9, 9}), test::i32({1}, {count})});
      CHECK(out[2].as<std::int32_t>()[0] == (count == 2 ? 1 : 0));
    }
  }
}
