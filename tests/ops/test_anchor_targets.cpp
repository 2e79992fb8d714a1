#include <limits>
#include <string>

#include "op_runner.h"
#include "reference/anchor_targets.h"

using namespace frcnn;
using namespace frcnn::test;

namespace {

constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();
using Truth = std::vector<std::vector<float>>;  // of each image: rows of x1,y1,x2,y2,class

struct Case {
  AnchorTargets op;
  Truth truth;
  std::vector<float> im_info;
  std::int64_t capacity = 0;  // rows of gt_boxes; at least as many as there are boxes
};

AnchorTargets op_of(std::int64_t height, std::int64_t width) {
  AnchorTargets op;
  op.base_anchors = {{-24, -8, 39, 23}, {-8, -24, 23, 39}, {-8, -8, 23, 23}, {0, 0, 15, 15}};
  op.height = height;
  op.width = width;
  return op;
}

std::vector<float> random_truth(std::size_t count, float extent, unsigned salt) {
  const Tensor random = uniform({static_cast<std::int64_t>(count), 4}, 0, 1, salt);
  std::vector<float> truth;
  for (std::size_t g = 0; g < count; ++g) {
    const auto u = random.as<float>().subspan(4 * g, 4);
    const float x = u[0] * extent, y = u[1] * extent;
    truth.insert(truth.end(), {x, y, x + u[2] * 70, y + u[3] * 70, static_cast<float>(g % 3 + 1)});
  }
  return truth;
}

// Runs and compares with the reference; returns the labels.
std::vector<std::int32_t> check(const Case& c, const RandomKey& key = {3, 4, 5, 6}) {
  const auto images = static_cast<std::int64_t>(c.truth.size());
  std::int64_t capacity = std::max<std::int64_t>(c.capacity, 1);
  for (const auto& rows : c.truth) capacity = std::max(capacity, static_cast<std::int64_t>(rows.size() / 5));
  std::vector<float> boxes;
  std::vector<std::int32_t> counts;
  for (const auto& rows : c.truth) {
    boxes.insert(boxes.end(), rows.begin(), rows.end());
    boxes.resize(static_cast<std::size_t>(capacity * 5) * (counts.size() + 1),
                 nan_value);  // nobody may look there
    counts.push_back(static_cast<std::int32_t>(rows.size() / 5));
  }
  std::vector<float> im_info;
  for (std::int64_t n = 0; n < images; ++n) im_info.insert(im_info.end(), c.im_info.begin(), c.im_info.end());
  const auto words = reinterpret_cast<const std::int32_t*>(&key);
  const std::vector<Tensor> got =
      run_op_any_threads(c.op, {f32({images, capacity, 5}, boxes), i32({images}, counts),
                                f32({images, 3}, im_info), i32({4}, {words, words + 4})});
  std::vector<std::int32_t> labels;
  std::vector<double> targets, inside;
  std::vector<float> outside;
  for (std::size_t n = 0; n < c.truth.size(); ++n) {
    const auto expected =
        reference::anchor_targets(c.op, c.truth[n], static_cast<double>(c.im_info[0]),
                                  static_cast<double>(c.im_info[1]), key, static_cast<std::int64_t>(n));
    labels.insert(labels.end(), expected.labels.begin(), expected.labels.end());
    targets.insert(targets.end(), expected.targets.begin(), expected.targets.end());
    inside.insert(inside.end(), expected.inside.begin(), expected.inside.end());
    outside.insert(outside.end(), expected.outside.begin(), expected.outside.end());
  }
  const auto at = got[0].as<std::int32_t>();
  CHECK(std::vector<std::int32_t>(at.begin(), at.end()) == labels);
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < targets.size(); ++i) {
    const double v = static_cast<double>(got[1].as<float>()[i]);
    wrong += !(std::abs(v - targets[i]) <= 1e-6 * (1 + std::abs(targets[i])) ||
               (std::isnan(v) && std::isnan(targets[i])) || v == targets[i]);
  }
  CHECK(wrong == 0);
  CHECK(max_error(got[2].as<float>(), inside) == 0);
  CHECK(max_error(got[3].as<float>(), outside) == 0);
  return labels;
}

std::int64_t count(const std::vector<std::int32_t>& labels, std::int32_t label) {
  return std::count(labels.begin(), labels.end(), label);
}

}  // namespace

TEST_CASE("anchor_targets: every option against the reference", "[targets]") {
  unsigned salt = 1;
  for (const auto& [height, width] : {std::pair{1, 1}, std::pair{7, 9}, std::pair{12, 5}}) {
    for (const PositiveAnchors positives : {PositiveAnchors::always, PositiveAnchors::fallback}) {
      for (const UntouchedBoxes untouched : {UntouchedBoxes::ignore, UntouchedBoxes::release}) {
        for (const std::int64_t batch : {1, 8, 64, 100000}) {
          Case c{
              op_of(height, width), {}, {static_cast<float>(height * 16), static_cast<float>(width * 16), 1}};
          c.op.positives = positives;
          c.op.untouched = untouched;
          c.op.batch = batch;
          c.op.norm = salt % 3 == 0 ? LossNorm::paper : LossNorm::caffe;
          c.op.allowed_border = salt % 2 == 0 ? 0 : 20;
          FRCNN_CASE("anchor_targets on " + std::to_string(height) + "x" + std::to_string(width) +
                     ", batch " + std::to_string(batch));
          for (const std::size_t boxes : {0, 1, 5, 23})
            c.truth.push_back(random_truth(boxes, static_cast<float>(16 * width), salt++));
          check(c, {salt, 1, 2, 3});
        }
      }
    }
  }
}

TEST_CASE("anchor_targets: no ground truth makes everything inside negative", "[targets]") {
  Case c{op_of(6, 6), {{}}, {96, 96, 1}};
  c.op.batch = 1000;
  const auto labels = check(c);
  CHECK(count(labels, 1) == 0);
  CHECK(count(labels, 0) > 0);
}

TEST_CASE("anchor_targets: no inside anchor, no part", "[targets]") {
  for (const UntouchedBoxes untouched : {UntouchedBoxes::ignore, UntouchedBoxes::release}) {
    Case c{op_of(2, 2), {{0, 0, 30, 30, 1}, {}}, {10, 10, 1}};
    c.op.untouched = untouched;
    const auto labels = check(c);
    CHECK(count(labels, -1) == static_cast<std::int64_t>(labels.size()));
  }
}

TEST_CASE("anchor_targets: more ground truth than anchors", "[targets]") {
  Case c{op_of(2, 3), {random_truth(90, 48, 1)}, {60, 70, 1}};
  check(c);
}

TEST_CASE("anchor_targets: ties are all positive, boxes that touch nothing are a choice", "[targets]") {
  // Of one box smaller than any anchor, all anchors that hold it and are alike have the best overlap.
  Case tie{op_of(6, 6), {{40, 40, 41, 41, 1}}, {96, 96, 1}};
  CHECK(count(check(tie), 1) >= 1);
  // A box beyond the image overlaps no inside anchor.
  Case beyond{op_of(6, 6), {{500, 500, 520, 520, 1, 20, 20, 50, 50, 2}}, {96, 96, 1}};
  beyond.op.batch = 1000;
  beyond.op.positive_fraction = 1;
  const std::int64_t guarded = count(check(beyond), 1);
  beyond.op.untouched = UntouchedBoxes::release;
  CHECK(count(check(beyond), 1) > guarded);
}

TEST_CASE("anchor_targets: degenerate boxes", "[targets]") {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const std::vector<float>& box :
       {std::vector<float>{20, 20, 20, 20, 1}, std::vector<float>{50, 50, 20, 20, 1},
        std::vector<float>{50, 20, 20, 50, 1}, std::vector<float>{-1e30f, -1e30f, 1e30f, 1e30f, 1},
        std::vector<float>{-infinity, -infinity, infinity, infinity, 1},
        std::vector<float>{nan_value, 0, 20, 20, 1}, std::vector<float>{30, 30, 29, 40, 1}}) {
    std::string values;
    for (const float v : box) values += std::to_string(v) + " ";
    FRCNN_CASE("anchor_targets of " + values);
    Case c{op_of(5, 5), {box}, {80, 80, 1}};
    check(c);
    c.truth[0].insert(c.truth[0].end(), {10, 10, 40, 40, 2});
    check(c);
  }
}

TEST_CASE("anchor_targets: counts beyond the capacity or below zero are limited", "[targets]") {
  const AnchorTargets op = op_of(4, 4);
  const std::vector<float> boxes = random_truth(3, 60, 1);
  const auto run = [&](std::int32_t n) {
    return run_op_any_threads(
        op, {f32({1, 3, 5}, boxes), i32({1}, {n}), f32({1, 3}, {64, 64, 1}), i32({4}, {1, 2, 3, 4})});
  };
  CHECK(same_bytes(run(1 << 30), run(3)));
  CHECK(same_bytes(run(-7), run(0)));
}

TEST_CASE("anchor_targets: other steps draw other anchors, equal ones the same", "[targets]") {
  Case c{op_of(9, 9), {random_truth(3, 140, 1)}, {144, 144, 1}};
  c.op.batch = 20;
  const auto first = check(c, {1, 2, 3, 4});
  CHECK(check(c, {1, 2, 3, 4}) == first);
  CHECK(check(c, {1, 2, 4, 4}) != first);
  CHECK(check(c, {2, 2, 3, 4}) != first);
  CHECK(check(c, {1, 2, 3, 5}) != first);
  CHECK(count(first, 0) + count(first, 1) == 20);
}
