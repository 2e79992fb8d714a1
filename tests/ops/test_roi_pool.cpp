#include <fmt/format.h>

#include "op_runner.h"
#include "ops/own_maps.h"
#include "random_rois.h"
#include "reference/roi_pool.h"

using namespace frcnn;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

void check(const RoiPool& op, const test::Tensor& features, const std::vector<float>& rois) {
  const auto count = static_cast<std::int64_t>(rois.size()) / 5;
  const auto out = test::run_op_any_threads(op, {features, test::f32({count, 5}, rois)});
  const auto want = reference::roi_pool(op, features.spec.shape, features.as<float>(), rois);
  CHECK(std::vector<float>(out[0].as<float>().begin(), out[0].as<float>().end()) == want);
}

}  // namespace

TEST_CASE("roi_pool agrees with the reference") {
  for (const std::int64_t channels : {1, 3, 31, 32, 33, 64, 70}) {
    for (const auto& [h, w] : {std::pair{1, 1}, std::pair{6, 6}, std::pair{7, 7}, std::pair{3, 5}}) {
      FRCNN_CASE(fmt::format("C {} pooled {}x{}", channels, h, w));
      const auto features = test::uniform({2, 9, 13, channels}, -1, 1, 1);
      // Corners are unordered, so half the RoIs are inverted, and a third reach outside.
      check({h, w, 0.0625f}, features, test::random_rois(20, 2, -60, 260, 2));
    }
  }
  check({7, 7, 0.125f}, test::uniform({1, 1, 1, 5}, -1, 1, 3), test::random_rois(10, 1, -20, 20, 4));
  check({7, 7, 1.0f}, test::uniform({1, 80, 70, 2}, -1, 1, 5), test::random_rois(40, 1, 0, 80, 6));
}

TEST_CASE("roi_pool of no rois") { check({}, test::uniform({1, 4, 4, 3}, 0, 1, 1), {}); }

// At 57 cells and 7 bins the float32 bin size is just above 57/7, so the last bin ends one cell behind the
// RoI.
TEST_CASE("roi_pool's bins are float32 quotients") {
  const std::int64_t width = 64;
  std::vector<float> ramp;
  for (std::int64_t x = 0; x < width; ++x) ramp.push_back(static_cast<float>(x));
  for (float last = 0; last < 60; ++last) {
    check({1, 7, 1.0f}, test::f32({1, 1, width, 1}, ramp), {0, 0, 0, last, 0});
    check({1, 6, 1.0f}, test::f32({1, 1, width, 1}, ramp), {0, 2, 0, last, 0});
  }
}

TEST_CASE("roi_pool rounds half away from zero") {
  const auto ramp = test::f32({1, 1, 6, 1}, {0, 1, 2, 3, 4, 5});
  const auto at = [&](float x) {
    return test::run_op(RoiPool{1, 1, 0.0625f}, {ramp, test::f32({1, 5}, {0, x, 0, x, 0})})[0].as<float>()[0];
  };
  CHECK(at(7.99f) == 0);
  CHECK(at(8) == 1);   // 0.5
  CHECK(at(40) == 3);  // 2.5
  CHECK(at(-8) == 0);  // -0.5 is cell -1: outside, empty, 0
}

TEST_CASE("roi_pool of malformed rois stays inside the map") {
  const auto features = test::uniform({2, 5, 6, 9}, -1, 1, 1);
  for (const float huge : {1e6f, 3e9f, 1e30f, 3.4e38f, infinity}) {
    check({7, 7, 0.0625f}, features,
          {0,    -huge, -huge, huge,  huge, 1,     huge, huge, -huge, -huge, 0,    huge, 0,
           huge, 10,    1,     -huge, 0,    -huge, 10,   0,    0,     0,     huge, huge});
  }
  check({3, 3, 0.0625f}, features,
        {0, nan_value, 0, 20, 20, 0, 0, 0, nan_value, nan_value, 1, nan_value, nan_value, nan_value,
         nan_value});
  // Image indices that name no image.
  for (const float image : {-1.0f, 2.0f, 0.5f, 1e30f, infinity, -infinity, nan_value}) {
    check({3, 3, 0.0625f}, features, {image, 0, 0, 60, 60});
  }
}

TEST_CASE("roi_pool passes over NaN features") {
  const auto features = test::f32({1, 1, 3, 1}, {nan_value, -2, nan_value});
  const auto out =
      test::run_op(RoiPool{1, 1, 1.0f}, {features, test::f32({2, 5}, {0, 0, 0, 2, 0, 0, 0, 0, 0, 0})});
  CHECK(out[0].as<float>()[0] == -2);
  CHECK(out[0].as<float>()[1] == -std::numeric_limits<float>::max());
}

TEST_CASE("roi_pool of a batch stays within the part of the map that an image owns") {
  test::check_own_maps(RoiPool{3, 2, 0.0625f});
}
