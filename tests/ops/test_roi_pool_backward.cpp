#include <fmt/format.h>

#include "central_differences.h"
#include "op_runner.h"
#include "random_rois.h"
#include "reference/roi_pool_backward.h"

using namespace frcnn;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

RoiPool with_argmax(RoiPool op) {
  op.save_argmax = true;
  return op;
}

RoiPoolBackward backward_of(const RoiPool& op, const Shape& s) { return {op, s[0], s[1], s[2]}; }

// Forward with its maxima, and backward, against the reference; returns the gradient.
test::Tensor check(const RoiPool& plain, const test::Tensor& features, const std::vector<float>& rois) {
  const RoiPool op = with_argmax(plain);
  const Shape& s = features.spec.shape;
  const auto count = static_cast<std::int64_t>(rois.size()) / 5;
  const test::Tensor boxes = test::f32({count, 5}, rois);
  const auto forward = test::run_op_any_threads(op, {features, boxes});
  CHECK(test::max_error(forward[0].as<float>(), reference::roi_pool(op, s, features.as<float>(), rois)) == 0);
  CHECK(test::max_error(forward[1].as<std::int32_t>(),
                        reference::roi_pool_argmax(op, s, features.as<float>(), rois)) == 0);
  const test::Tensor d_dst = test::uniform(forward[0].spec.shape, -1, 1, 77);
  const auto got = test::run_op_any_threads(backward_of(op, s), {d_dst, forward[1], boxes});
  CHECK(got[0].spec.shape == s);
  CHECK(test::max_error(got[0].as<float>(),
                        reference::roi_pool_backward(op, s, d_dst.as<float>(), forward[1].as<std::int32_t>(),
                                                     rois)) == 0);
  return got[0];
}

}  // namespace

TEST_CASE("roi_pool_backward agrees with the reference") {
  for (const std::int64_t channels : {1, 3, 31, 32, 33, 64, 70}) {
    for (const auto& [h, w] : {std::pair{1, 1}, std::pair{6, 6}, std::pair{7, 7}, std::pair{3, 5}}) {
      FRCNN_CASE(fmt::format("roi_pool_backward, C {} pooled {}x{}", channels, h, w));
      // Whole numbers, so that there are ties. Corners are unordered: half the RoIs are inverted, a third
      // reach outside.
      check({h, w, 0.0625f}, test::integers({2, 9, 13, channels}, 3, 1),
            test::random_rois(20, 2, -60, 260, 2));
    }
  }
  check({7, 7, 0.125f}, test::uniform({1, 1, 1, 5}, -1, 1, 3), test::random_rois(10, 1, -20, 20, 4));
  check({7, 7, 1.0f}, test::uniform({1, 80, 70, 2}, -1, 1, 5), test::random_rois(40, 1, 0, 80, 6));
}

TEST_CASE("roi_pool_backward of no rois is zero") {
  CHECK(test::all_zero(check({}, test::uniform({2, 4, 4, 3}, 0, 1, 1), {})));
}

TEST_CASE("roi_pool_backward: agrees with differences of the forward pass") {
  const Shape shape{2, 5, 6, 2};
  const RoiPool op = with_argmax({3, 2, 0.0625f});
  const test::Tensor features = test::distinct(shape, 1);
  const std::vector<float> rois{0,   0,   0, 40,  70,  1,  16, 20, 60, 30, 0,  48, 32,
                                200, 300, 1, -90, -90, 20, 33, 1,  30, 30, 30, 30};
  const test::Tensor boxes = test::f32({5, 5}, rois);
  const auto forward = test::run_op(op, {features, boxes});
  const test::Tensor d_dst = test::integers(forward[0].spec.shape, 9, 2);
  const auto exact = test::central_differences(
      features.as<float>(), d_dst.as<float>(),
      [&](std::span<const float> x) { return reference::roi_pool(op, shape, x, rois); });
  const auto got = test::run_op(backward_of(op, shape), {d_dst, forward[1], boxes});
  CHECK(test::max_error(got[0].as<float>(), exact) < 1e-9);
}

TEST_CASE("roi_pool_backward: an inverted roi gives nothing, nor does a cell beyond the roi's end") {
  const test::Tensor features = test::uniform({1, 6, 6, 2}, 1, 2, 1);
  CHECK(test::all_zero(check({2, 2, 0.0625f}, features, {0, 60, 10, 20, 50})));
  CHECK(test::all_zero(check({2, 2, 0.0625f}, features, {0, 10, 60, 50, 20})));
  // 57 cells in 7 bins: the last bin's end, computed in float32, is one cell beyond.
  const std::int64_t width = 64;
  std::vector<float> ramp;
  for (std::int64_t x = 0; x < width; ++x) ramp.push_back(static_cast<float>(x));
  const test::Tensor gradient = check({1, 7, 1.0f}, test::f32({1, 1, width, 1}, ramp), {0, 0, 0, 56, 0});
  CHECK(gradient.as<float>()[57] == 0);
}

TEST_CASE("roi_pool_backward of malformed rois stays inside the map") {
  const auto features = test::uniform({2, 5, 6, 9}, -1, 1, 1);
  for (const float huge : {1e6f, 3e9f, 1e30f, 3.4e38f, infinity}) {
    check({7, 7, 0.0625f}, features,
          {0,    -huge, -huge, huge,  huge, 1,     huge, huge, -huge, -huge, 0,    huge, 0,
           huge, 10,    1,     -huge, 0,    -huge, 10,   0,    0,     0,     huge, huge});
  }
  check({3, 3, 0.0625f}, features,
        {0, nan_value, 0, 20, 20, 0, 0, 0, nan_value, nan_value, 1, nan_value, nan_value, nan_value,
         nan_value});
  for (const float image : {-1.0f, 2.0f, 0.5f, 1e30f, infinity, -infinity, nan_value})
    CHECK(test::all_zero(check({3, 3, 0.0625f}, features, {image, 0, 0, 60, 60})));
}

TEST_CASE("roi_pool_backward: bins that hold no number give nothing") {
  const auto features = test::f32({1, 1, 3, 1}, {nan_value, -2, nan_value});
  const test::Tensor gradient = check({1, 1, 1.0f}, features, {0, 0, 0, 2, 0, 0, 0, 0, 0, 0});
  CHECK(gradient.as<float>()[0] == 0);
  CHECK(gradient.as<float>()[1] != 0);
  CHECK(gradient.as<float>()[2] == 0);
}
