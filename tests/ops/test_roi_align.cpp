#include <fmt/format.h>

#include "op_runner.h"
#include "ops/own_maps.h"
#include "random_rois.h"
#include "reference/roi_align.h"

using namespace frcnn;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

void check(const RoiAlign& op, const test::Tensor& features, const std::vector<float>& rois) {
  const auto count = static_cast<std::int64_t>(rois.size()) / 5;
  const auto out = test::run_op_any_threads(op, {features, test::f32({count, 5}, rois)});
  test::check_error(out[0].as<float>(),
                    reference::roi_align<float>(op, features.spec.shape, features.as<float>(), rois),
                    reference::roi_align<double>(op, features.spec.shape, features.as<float>(), rois));
}

}  // namespace

TEST_CASE("roi_align agrees with the double reference") {
  for (const bool aligned : {false, true}) {
    for (const int ratio : {0, 1, 2, 3}) {
      for (const std::int64_t channels : {1, 5, 32}) {
        FRCNN_CASE(fmt::format("aligned {} sampling_ratio {} C {}", aligned, ratio, channels));
        const auto features = test::uniform({2, 9, 13, channels}, -1, 1, 1);
        check({7, 7, 0.0625f, ratio, aligned}, features,
              test::random_rois(20, 2, -60, 260, 2));  // inverted, outside
        check({2, 3, 0.25f, ratio, aligned}, features, test::random_rois(10, 2, -10, 60, 3));
      }
    }
  }
  check({7, 7, 0.125f, 0, true}, test::uniform({1, 1, 1, 3}, -1, 1, 4), test::random_rois(10, 1, -20, 20, 5));
}

TEST_CASE("roi_align of no rois") { check({}, test::uniform({1, 4, 4, 3}, 0, 1, 1), {}); }

// Bins far larger than the map take thousands of points, nearly all outside; skipping those must change
// nothing.
TEST_CASE("roi_align of rois far larger than the map") {
  const auto features = test::uniform({1, 5, 6, 2}, -1, 1, 1);
  for (const bool aligned : {false, true}) {
    check({2, 2, 1.0f, 0, aligned}, features,
          {0, -400.3f, -300.7f, 700.9f, 500.1f, 0, 1.5f, 2.25f, 900.7f, 800.9f});
  }
}

TEST_CASE("roi_align of malformed rois") {
  const auto features = test::uniform({2, 5, 6, 3}, 1, 2, 1);
  const auto run = [&](const std::vector<float>& roi, bool aligned) {
    return test::run_op_any_threads(RoiAlign{3, 3, 0.0625f, 0, aligned},
                                    {features, test::f32({1, 5}, roi)})[0];
  };
  for (const bool aligned : {false, true}) {
    for (const float image : {-1.0f, 2.0f, 0.5f, infinity, nan_value})
      CHECK(test::all_zero(run({image, 0, 0, 60, 60}, aligned)));
    for (std::size_t k = 1; k < 5; ++k) {
      std::vector<float> roi{0, 10, 10, 60, 60};
      roi[k] = nan_value;
      CHECK(test::all_zero(run(roi, aligned)));
    }
    for (const float huge : {1e9f, 1e30f, 3.4e38f, infinity}) {
      const auto covering = run({1, -huge, -huge, huge, huge}, aligned);  // nearly all points are outside
      for (float v : covering.as<float>()) CHECK(std::abs(v) < 1e-3f);
      CHECK(test::all_zero(run({1, huge, huge, -huge, -huge}, aligned)));
    }
  }
}

TEST_CASE("roi_align passes NaN and infinities on, to the bins that sample them") {
  for (const float bad : {nan_value, infinity}) {
    auto features = test::uniform({1, 8, 8, 2}, 1, 2, 1);
    const RoiAlign op{2, 2, 1.0f, 2, false};
    const auto rois = test::f32({1, 5}, {0, 0.3f, 0.3f, 6.3f, 6.3f});
    const test::Tensor clean = test::run_op_any_threads(op, {features, rois})[0];
    features.as<float>()[0 * 2 + 1] = bad;  // the corner, channel 1: only the first bin comes near
    features.as<float>()[(2 * 8 + 2) * 2 + 1] = bad;
    const test::Tensor got = test::run_op_any_threads(op, {features, rois})[0];
    for (std::size_t i = 0; i < 8; ++i) {
      INFO("bin " << i / 2 << " channel " << i % 2);
      if (i == 1) {
        CHECK_FALSE(std::isfinite(got.as<float>()[i]));
      } else {
        CHECK(got.as<float>()[i] == clean.as<float>()[i]);
      }
    }
  }
}

TEST_CASE("roi_align of a batch stays within the part of the map that an image owns") {
  test::check_own_maps(RoiAlign{3, 2, 0.0625f, 0, false});
  test::check_own_maps(RoiAlign{2, 2, 0.0625f, 2, true});
}
