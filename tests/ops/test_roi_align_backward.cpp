#include <fmt/format.h>

#include "central_differences.h"
#include "op_runner.h"
#include "random_rois.h"
#include "reference/roi_align.h"
#include "reference/roi_align_backward.h"

using namespace frcnn;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

test::Tensor run(const RoiAlign& op, const Shape& s, const test::Tensor& d_dst,
                 const std::vector<float>& rois) {
  const auto count = static_cast<std::int64_t>(rois.size()) / 5;
  auto got =
      test::run_op_any_threads(RoiAlignBackward{op, s[0], s[1], s[2]}, {d_dst, test::f32({count, 5}, rois)});
  CHECK(got[0].spec.shape == s);
  return got[0];
}

test::Tensor gradients(const RoiAlign& op, const Shape& s, const std::vector<float>& rois, unsigned salt) {
  return test::uniform({static_cast<std::int64_t>(rois.size()) / 5, op.pooled_h, op.pooled_w, s[3]}, -1, 1,
                       salt);
}

void check(const RoiAlign& op, const Shape& s, const std::vector<float>& rois) {
  const test::Tensor d_dst = gradients(op, s, rois, 77);
  test::check_error(run(op, s, d_dst, rois).as<float>(),
                    reference::roi_align_backward<float>(op, s, d_dst.as<float>(), rois),
                    reference::roi_align_backward<double>(op, s, d_dst.as<float>(), rois));
}

}  // namespace

TEST_CASE("roi_align_backward agrees with the double reference") {
  for (const bool aligned : {false, true}) {
    for (const int ratio : {0, 1, 2, 3}) {
      for (const std::int64_t channels : {1, 5, 32}) {
        FRCNN_CASE(
            fmt::format("roi_align_backward, aligned {} sampling_ratio {} C {}", aligned, ratio, channels));
        check({7, 7, 0.0625f, ratio, aligned}, {2, 9, 13, channels}, test::random_rois(20, 2, -60, 260, 2));
        check({2, 3, 0.25f, ratio, aligned}, {2, 9, 13, channels}, test::random_rois(10, 2, -10, 60, 3));
      }
    }
  }
  check({7, 7, 0.125f, 0, true}, {1, 1, 1, 3}, test::random_rois(10, 1, -20, 20, 5));
}

TEST_CASE("roi_align_backward: agrees with differences of the forward pass") {
  const Shape shape{2, 5, 6, 2};
  const std::vector<float> rois{0, 1.5f, 2.25f, 41.75f, 70.5f, 1, 16,  20,  60, 30.5f,
                                0, 48,   32,    200,    300,   1, -90, -90, 20, 33};
  for (const bool aligned : {false, true}) {
    for (const int ratio : {0, 2}) {
      const RoiAlign op{3, 2, 0.0625f, ratio, aligned};
      FRCNN_CASE(fmt::format("roi_align_backward, aligned {} sampling_ratio {}", aligned, ratio));
      const test::Tensor features = test::on_grid(shape, -1, 1, 1), d_dst = gradients(op, shape, rois, 2);
      const auto exact = test::central_differences(
          features.as<float>(), d_dst.as<float>(),
          [&](std::span<const float> x) { return reference::roi_align<double>(op, shape, x, rois); });
      test::check_error(run(op, shape, d_dst, rois).as<float>(),
                        reference::roi_align_backward<float>(op, shape, d_dst.as<float>(), rois), exact);
    }
  }
}

TEST_CASE("roi_align_backward of no rois is zero") {
  CHECK(test::all_zero(run({}, {1, 4, 4, 3}, test::Tensor({Shape{0, 7, 7, 3}, DType::f32}), {})));
}

TEST_CASE("roi_align_backward of rois far larger than the map") {
  for (const bool aligned : {false, true})
    check({2, 2, 1.0f, 0, aligned}, {1, 5, 6, 2},
          {0, -400.3f, -300.7f, 700.9f, 500.1f, 0, 1.5f, 2.25f, 900.7f, 800.9f});
}

TEST_CASE("roi_align_backward of malformed rois") {
  const Shape shape{2, 5, 6, 3};
  for (const bool aligned : {false, true}) {
    const RoiAlign op{3, 3, 0.0625f, 0, aligned};
    const auto gradient = [&](const std::vector<float>& roi) {
      return run(op, shape, gradients(op, shape, roi, 1), roi);
    };
    for (const float image : {-1.0f, 2.0f, 0.5f, infinity, nan_value})
      CHECK(test::all_zero(gradient({image, 0, 0, 60, 60})));
    for (std::size_t k = 1; k < 5; ++k) {
      std::vector<float> roi{0, 10, 10, 60, 60};
      roi[k] = nan_value;
      CHECK(test::all_zero(gradient(roi)));
    }
    for (const float huge : {1e9f, 1e30f, 3.4e38f, infinity}) {
      const test::Tensor covering = gradient({1, -huge, -huge, huge, huge});  // nearly all points are outside
      for (const float v : covering.as<float>()) CHECK(std::abs(v) < 1e-3f);
      CHECK(test::all_zero(gradient({1, huge, huge, -huge, -huge})));
    }
  }
}
