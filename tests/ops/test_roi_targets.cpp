#include <limits>
#include <string>

#include "op_runner.h"
#include "reference/roi_targets.h"

using namespace frcnn;
using namespace frcnn::test;

namespace {

constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();
using Rows = std::vector<std::vector<float>>;  // of each image

struct Case {
  RoiTargets op;
  Rows rois, truth;  // rows of image,x1,y1,x2,y2 and of x1,y1,x2,y2,class
};

// Boxes near a few places, so that many overlap.
std::vector<float> boxes(std::size_t count, unsigned salt, const std::vector<float>& prefix,
                         const std::vector<float>& suffix) {
  const Tensor random = uniform({static_cast<std::int64_t>(count), 5}, 0, 1, salt);
  std::vector<float> rows;
  for (std::size_t i = 0; i < count; ++i) {
    const auto u = random.as<float>().subspan(5 * i, 5);
    const float x = std::floor(u[0] * 3) * 40 + u[1] * 16, y = std::floor(u[2] * 3) * 40 + u[3] * 16;
    rows.insert(rows.end(), prefix.begin(), prefix.end());
    rows.insert(rows.end(), {x, y, x + 30 + u[4] * 30, y + 60 - u[4] * 30});
    rows.insert(rows.end(), suffix.begin(), suffix.end());
  }
  return rows;
}
std::vector<float> proposals(std::size_t count, std::size_t image, unsigned salt) {
  return boxes(count, salt, {static_cast<float>(image)}, {});
}
std::vector<float> truth(std::size_t count, float label, unsigned salt) {
  return boxes(count, salt, {}, {label});
}

std::vector<Tensor> check(const Case& c, const RandomKey& key = {3, 4, 5, 6}) {
  const std::size_t images = c.rois.size();
  std::size_t rois_capacity = 0, truth_capacity = 1;
  for (const auto& rows : c.rois) rois_capacity = std::max(rois_capacity, rows.size() / 5 + 2);
  for (const auto& rows : c.truth) truth_capacity = std::max(truth_capacity, rows.size() / 5 + 1);
  std::vector<float> all_rois, all_truth;
  std::vector<std::int32_t> roi_counts, truth_counts;
  for (std::size_t n = 0; n < images; ++n) {
    all_rois.insert(all_rois.end(), c.rois[n].begin(), c.rois[n].end());
    all_rois.resize((n + 1) * rois_capacity * 5, nan_value);
    all_truth.insert(all_truth.end(), c.truth[n].begin(), c.truth[n].end());
    all_truth.resize((n + 1) * truth_capacity * 5, nan_value);
    roi_counts.push_back(static_cast<std::int32_t>(c.rois[n].size() / 5));
    truth_counts.push_back(static_cast<std::int32_t>(c.truth[n].size() / 5));
  }
  const auto n = static_cast<std::int64_t>(images);
  const auto words = reinterpret_cast<const std::int32_t*>(&key);
  std::vector<Tensor> got = run_op_any_threads(
      c.op, {f32({n * static_cast<std::int64_t>(rois_capacity), 5}, all_rois), i32({n}, roi_counts),
             f32({n, static_cast<std::int64_t>(truth_capacity), 5}, all_truth), i32({n}, truth_counts),
             i32({4}, {words, words + 4})});
  std::vector<float> rois;
  std::vector<int> labels, counts;
  std::vector<double> targets, weights;
  for (std::size_t image = 0; image < images; ++image) {
    const auto expected =
        reference::roi_targets(c.op, c.rois[image], c.truth[image], key, static_cast<std::int64_t>(image));
    rois.insert(rois.end(), expected.rois.begin(), expected.rois.end());
    labels.insert(labels.end(), expected.labels.begin(), expected.labels.end());
    targets.insert(targets.end(), expected.targets.begin(), expected.targets.end());
    weights.insert(weights.end(), expected.inside.begin(), expected.inside.end());
    counts.push_back(static_cast<int>(expected.count));
  }
  CHECK(max_error(got[0].as<float>(), rois) == 0);
  CHECK(max_error(got[1].as<std::int32_t>(), labels) == 0);
  CHECK(max_error(got[2].as<float>(), targets) < 1e-5);
  CHECK(max_error(got[3].as<float>(), weights) == 0);
  CHECK(max_error(got[4].as<float>(), weights) == 0);
  CHECK(max_error(got[5].as<std::int32_t>(), counts) == 0);
  return got;
}

}  // namespace

TEST_CASE("roi_targets: against the reference", "[targets]") {
  unsigned salt = 1;
  for (const std::int64_t batch : {1, 7, 128}) {
    for (const double low : {0.0, 0.1}) {
      for (const std::size_t candidates : {0, 1, 40, 300}) {
        FRCNN_CASE("roi_targets, batch " + std::to_string(batch) + " of " + std::to_string(candidates));
        Case c;
        c.op.classes = 5;
        c.op.batch = batch;
        c.op.background_iou_low = low;
        c.op.means = {0.01f, -0.02f, 0.03f, 0};
        for (std::size_t image = 0; image < 3; ++image) {
          c.rois.push_back(proposals(candidates, image, salt++));
          c.truth.push_back(
              truth(image * 3, static_cast<float>(image + 1), salt++));  // one image has no objects
        }
        check(c, {salt, 2, 3, 4});
      }
    }
  }
}

TEST_CASE("roi_targets: fewer candidates than places leave rows without a label", "[targets]") {
  Case c;
  c.op.batch = 16;
  c.rois = {proposals(3, 0, 1)};
  c.truth = {truth(2, 4, 2)};
  const auto got = check(c);
  CHECK(got[5].as<std::int32_t>()[0] <= 5);
  CHECK(got[1].as<std::int32_t>()[15] == -1);
}

TEST_CASE("roi_targets: nothing at all", "[targets]") {
  Case c;
  c.op.batch = 4;
  c.rois = {{}};
  c.truth = {{}};
  CHECK(check(c)[5].as<std::int32_t>()[0] == 0);
}

TEST_CASE("roi_targets: the foreground's share is rounded half to even", "[targets]") {
  Case c;
  c.op.batch = 10;  // a quarter: 2.5
  c.rois = {proposals(200, 0, 1)};
  c.truth = {truth(6, 4, 1)};
  const auto got = check(c);
  CHECK(got[1].as<std::int32_t>()[1] == 4);
  CHECK(got[1].as<std::int32_t>()[2] == 0);
}

TEST_CASE("roi_targets: the ground truth itself is a candidate, with targets of zero", "[targets]") {
  Case c;
  c.op.batch = 8;
  c.rois = {{}};
  c.truth = {{10, 10, 50, 60, 2, 80, 80, 90, 99, 3}};
  const auto got = check(c);
  CHECK(got[1].as<std::int32_t>()[0] == 2);
  CHECK(got[1].as<std::int32_t>()[1] == 3);
  for (const float v : got[2].as<float>()) CHECK(v == 0);
}

TEST_CASE("roi_targets: a class beyond the model's keeps its label and gets no target", "[targets]") {
  Case c;
  c.op.classes = 3;
  c.op.batch = 4;
  c.rois = {{}};
  c.truth = {{10, 10, 50, 60, 3, 80, 80, 90, 99, 1000}};
  const auto got = check(c);
  CHECK(got[1].as<std::int32_t>()[0] == 3);
  for (const float v : got[3].as<float>()) CHECK(v == 0);
}

TEST_CASE("roi_targets: degenerate boxes", "[targets]") {
  const float infinity = std::numeric_limits<float>::infinity();
  Case c;
  c.op.batch = 32;
  c.rois = {{0, 50, 50, 20,     20,     0,     20,    20, 20,        20, 0,        nan_value, 0,
             5, 5,  0,  -1e30f, -1e30f, 1e30f, 1e30f, 0,  -infinity, 0,  infinity, 9}};
  c.truth = {{60, 60, 30, 30, 1, 20, 20, 20, 20, 2, 10, 10, 40, 40, 3}};
  const std::vector<Tensor> got =
      run_op_any_threads(c.op, {f32({5, 5}, c.rois[0]), i32({1}, {5}), f32({1, 3, 5}, c.truth[0]),
                                i32({1}, {3}), i32({4}, {1, 2, 3, 4})});
  // The box of one pixel is found by its copy; what is no box overlaps nothing.
  CHECK(got[5].as<std::int32_t>()[0] == 8);
  const auto labels = got[1].as<std::int32_t>();
  CHECK(std::count(labels.begin(), labels.end(), 2) == 2);
  CHECK(std::count(labels.begin(), labels.end(), 3) == 1);
}

TEST_CASE("roi_targets: counts beyond the capacity or below zero are limited", "[targets]") {
  RoiTargets op;
  op.batch = 16;
  const auto run = [&](std::int32_t rois, std::int32_t boxes_there) {
    return run_op_any_threads(
        op, {f32({4, 5}, proposals(4, 0, 1)), i32({1}, {rois}), f32({1, 2, 5}, truth(2, 1, 2)),
             i32({1}, {boxes_there}), i32({4}, {1, 2, 3, 4})});
  };
  CHECK(same_bytes(run(1 << 30, 1 << 30), run(4, 2)));
  CHECK(same_bytes(run(-7, -1), run(0, 0)));
}

TEST_CASE("roi_targets: other steps draw other rois, equal ones the same", "[targets]") {
  Case c;
  c.op.batch = 16;
  c.rois = {proposals(300, 0, 1)};
  c.truth = {truth(5, 2, 2)};
  const auto first = check(c, {1, 2, 3, 4});
  CHECK(same_bytes(check(c, {1, 2, 3, 4}), first));
  CHECK_FALSE(same_bytes(check(c, {1, 2, 4, 4}), first));
  CHECK_FALSE(same_bytes(check(c, {1, 9, 3, 4}), first));
}
