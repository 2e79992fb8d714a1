// The VOC evaluation on cases small enough to be worked out by hand.
#include <string>
#include <vector>

#include "catch.h"
#include "frcnn/error.h"
#include "training/voc_eval.h"

namespace {

using frcnn::VocCurve;
using frcnn::VocDetection;
using frcnn::VocMetric;
using frcnn::VocTruth;
using Doubles = std::vector<double>;

VocTruth truth(std::vector<std::array<double, 4>> boxes, std::vector<bool> difficult) {
  return {std::move(boxes), std::move(difficult)};
}

frcnn::VocDataset dataset(const std::vector<std::vector<frcnn::VocObject>>& images) {
  frcnn::VocDataset data;
  for (std::size_t i = 0; i < images.size(); ++i)
    data.images.push_back({std::to_string(i), "", 0, 0, images[i]});
  return data;
}

}  // namespace

TEST_CASE("voc eval: one object is found once, difficult ones are out of the count") {
  const std::vector<VocTruth> image{truth({{1, 1, 10, 10}, {21, 1, 30, 10}}, {false, true}), truth({}, {})};
  const std::vector<VocDetection> detections{
      {0, 0.5, {1, 1, 10, 10}},   // second on the same object: wrong
      {0, 0.9, {1, 1, 10, 10}},   // right
      {0, 0.8, {21, 1, 30, 10}},  // on the difficult one: ignored
      {0, 0.7, {21, 1, 30, 10}},  // again: still ignored
      {1, 0.6, {1, 1, 10, 10}},   // an image without objects: wrong
  };
  const VocCurve curve = frcnn::voc_curve(image, detections, 0.5);
  CHECK(curve.positives == 1);
  CHECK(curve.recall == Doubles{1, 1, 1, 1, 1});
  CHECK(curve.precision == Doubles{1, 1, 1, 1.0 / 2, 1.0 / 3});
  CHECK(frcnn::average_precision(curve, VocMetric::eleven_point) == Approx(1));
  CHECK(frcnn::average_precision(curve, VocMetric::area) == Approx(1));
}

TEST_CASE("voc eval: overlap must exceed the threshold, with +1 widths") {
  // 10x10 against 10x5: exactly one half with +1.
  const std::vector<VocTruth> image{truth({{1, 1, 10, 10}}, {false})};
  CHECK(frcnn::voc_curve(image, std::vector<VocDetection>{{0, 1, {1, 1, 10, 5}}}, 0.5).recall == Doubles{0});
  CHECK(frcnn::voc_curve(image, std::vector<VocDetection>{{0, 1, {1, 1, 10, 5.01}}}, 0.5).recall ==
        Doubles{1});
}

TEST_CASE("voc eval: only the best overlapped object counts, even when it is taken") {
  const std::vector<VocTruth> image{truth({{1, 1, 10, 10}, {1, 2, 10, 11}}, {false, false})};
  const std::vector<VocDetection> detections{{0, 0.9, {1, 1, 10, 10}}, {0, 0.8, {1, 1, 10, 10}}};
  CHECK(frcnn::voc_curve(image, detections, 0.5).recall == Doubles{0.5, 0.5});
}

TEST_CASE("voc eval: equal scores stay in input order") {
  const std::vector<VocTruth> image{truth({{1, 1, 10, 10}}, {false})};
  const std::vector<VocDetection> wrong_first{{0, 0.5, {50, 50, 60, 60}}, {0, 0.5, {1, 1, 10, 10}}};
  const std::vector<VocDetection> right_first{wrong_first[1], wrong_first[0]};
  CHECK(frcnn::voc_curve(image, wrong_first, 0.5).precision == Doubles{0, 0.5});
  CHECK(frcnn::voc_curve(image, right_first, 0.5).precision == Doubles{1, 0.5});
}

TEST_CASE("voc eval: average precision by both rules") {
  VocCurve curve;
  curve.positives = 5;
  curve.recall = {0.2, 0.2, 0.4, 0.6, 0.6};
  curve.precision = {1, 0.5, 2.0 / 3, 0.75, 0.6};
  // Points 0, .1, .2 reach precision 1; .3 (0.30000000000000004), .4 and .5 reach 0.75; 0.6 is
  // 0.6000000000000001 and missed.
  CHECK(frcnn::average_precision(curve, VocMetric::eleven_point) == Approx((3 * 1 + 3 * 0.75) / 11));
  CHECK(frcnn::average_precision(curve, VocMetric::area) == Approx(0.2 * 1 + 0.4 * 0.75));
  CHECK(frcnn::average_precision(VocCurve{}, VocMetric::area) == 0);
  CHECK(frcnn::average_precision(VocCurve{}, VocMetric::eleven_point) == 0);
}

TEST_CASE("voc eval: text keeps three decimals of scores and one of boxes, half to even as printf does") {
  const VocDetection text = frcnn::rounded_as_text({3, 0.12345, {1.25, 1.35, 99.949, -0.04}});
  CHECK(text.image == 3);
  CHECK(text.score == 0.123);
  CHECK(text.box[0] == 1.2);  // 1.25 is exact and ties to even
  CHECK(text.box[1] == 1.4);  // 1.35 lies above its decimal
  CHECK(text.box[2] == 99.9);
  CHECK(text.box[3] == 0);
}

TEST_CASE("voc eval: classes, boxes counted from 0 against 1, and the two means") {
  const auto data = dataset({{{"cat", false, {11, 11, 20, 20}, 1}, {"cow", true, {1, 1, 5, 5}, 2}},
                             {{"cat", false, {1, 1, 10, 10}, 1}}});
  const std::vector<std::string> classes{"cat", "cow", "dog"};
  // Scores that text cannot tell apart: the exact order puts the wrong one first, the rounded order the
  // earlier image.
  std::vector<std::vector<frcnn::NamedDetection>> found{
      {{"cat", 0.90001f, {10, 10, 19, 19}}, {"pig", 1, {0, 0, 1, 1}}}, {{"cat", 0.9004f, {50, 50, 60, 60}}}};
  const auto score = frcnn::voc_score(data, classes, found, VocMetric::area);
  REQUIRE(score.classes.size() == 3);
  CHECK(score.classes[0].positives == 2);
  CHECK(score.classes[0].detections == 2);
  CHECK(score.classes[0].max_recall == 0.5);
  CHECK(*score.classes[0].ap == Approx(0.25));
  CHECK(*score.classes[0].ap_rounded == Approx(0.5));
  CHECK_FALSE(score.classes[1].ap);  // only difficult objects: nothing to recall
  CHECK_FALSE(score.classes[2].ap);
  CHECK(*score.map == Approx(0.25));
  CHECK(*score.map_rounded == Approx(0.5));
  found.pop_back();
  CHECK_THROWS_AS(frcnn::voc_score(data, classes, found, VocMetric::area), frcnn::Error);
}

TEST_CASE("voc eval: a class in other letters is the same class") {
  const auto data = dataset({{{"Cat", false, {11, 11, 20, 20}, 1}, {"cat", false, {31, 31, 40, 40}, 2}}});
  const std::vector<std::string> classes{"cat", "dog"};
  const std::vector<std::vector<frcnn::NamedDetection>> found{
      {{"cat", 0.9f, {10, 10, 19, 19}}, {"CAT", 0.8f, {30, 30, 39, 39}}}};
  const auto score = frcnn::voc_score(data, classes, found, VocMetric::area);
  CHECK(score.classes[0].positives == 2);
  CHECK(*score.classes[0].ap == Approx(1));
}

TEST_CASE("proposal recall: one to one, the best covered object first") {
  // Proposal 0 covers both objects; the second is covered better and takes it, so the first gets the worse
  // proposal 1.
  const auto data = dataset(
      {{{"a", false, {1, 1, 10, 10}, 1}, {"b", false, {1, 2, 10, 11}, 1}, {"c", true, {1, 1, 4, 4}, 1}}});
  const std::vector<std::vector<std::array<float, 4>>> both{{{0, 1, 9, 10}, {0, 0, 9, 5}}};
  const auto recall = frcnn::proposal_recall(data, both);
  REQUIRE(recall);
  CHECK(recall->objects == 2);
  CHECK(recall->recall[0] == 1);  // 1.0 and 0.6
  CHECK(recall->recall[2] == 1);  // 0.60 reaches 0.60
  CHECK(recall->recall[3] == 0.5);
  CHECK(recall->average == Approx((3 * 1 + 7 * 0.5) / 10));
  const std::vector<std::vector<std::array<float, 4>>> none{{}};
  CHECK(frcnn::proposal_recall(data, none)->average == 0);
  CHECK_FALSE(frcnn::proposal_recall(data, both, {200, 300}));
  CHECK(frcnn::proposal_recall(data, both, {100, 100})->objects == 2);
}
