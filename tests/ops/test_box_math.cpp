#include "box_math.h"

#include <cmath>
#include <limits>

#include "op_runner.h"

using namespace frcnn;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

// |exp_f32(x) - e^x| in units of the last place of e^x; 0 where both overflow.
double ulps(float x) {
  const double want = std::exp(static_cast<double>(x));
  const float got = exp_f32(x);
  if (std::isinf(static_cast<float>(want)) || std::isinf(got))
    return static_cast<float>(want) == got ? 0 : 1e9;
  int exponent = 0;
  std::frexp(want, &exponent);
  return std::abs(static_cast<double>(got) - want) / std::ldexp(1.0, std::max(exponent - 24, -149));
}

}  // namespace

TEST_CASE("exp_f32 is within one unit of the last place over the whole range") {
  double worst = 0;
  for (std::uint32_t bits = 0; bits <= ieee::bits(90.0f); bits += 1009)
    worst = std::max(worst, ulps(ieee::from_bits(bits)));
  for (std::uint32_t bits = 0; bits <= ieee::bits(106.0f); bits += 1009) {
    worst = std::max(worst, ulps(ieee::from_bits(bits | 0x80000000u)));
  }
  CAPTURE(worst);
  CHECK(worst < 1);
}

TEST_CASE("exp_f32 at its ends") {
  CHECK(exp_f32(0.0f) == 1.0f);
  CHECK(exp_f32(-0.0f) == 1.0f);
  CHECK(std::isnan(exp_f32(nan_value)));
  CHECK(exp_f32(infinity) == infinity);
  CHECK(exp_f32(-infinity) == 0.0f);
  CHECK(exp_f32(3e38f) == infinity);
  CHECK(exp_f32(-3e38f) == 0.0f);
  // Where the result overflows, becomes denormal and vanishes: every float on both sides.
  for (const float centre : {0x1.62e42ep+6f, -87.33655f, -103.27893f, -103.97208f, -104.0f}) {
    float below = centre, above = centre;
    for (int i = 0; i < 100; ++i) {
      CHECK(ulps(below) < 1);
      CHECK(ulps(above) < 1);
      below = std::nextafter(below, -infinity);
      above = std::nextafter(above, infinity);
    }
  }
  CHECK(std::isfinite(exp_f32(0x1.62e42ep+6f)));
  CHECK(std::isinf(exp_f32(std::nextafter(0x1.62e42ep+6f, infinity))));
}

TEST_CASE("decoding has no -1 at the right edge") {
  const Box box = decode({10, 20, 49, 99}, 0, 0, 0, 0);
  CHECK((box.x1 == 10 && box.y1 == 20 && box.x2 == 50 && box.y2 == 100));
}

TEST_CASE("clipping keeps NaN and answers for images without pixels") {
  CHECK(clip(5.0f, 9.0f) == 5);
  CHECK(clip(-infinity, 9.0f) == 0);
  CHECK(clip(infinity, 9.0f) == 9);
  CHECK(clip(5.0f, -1.0f) == 0);
  CHECK(std::isnan(clip(nan_value, 9.0f)));
  CHECK_FALSE(is_at_least({0, 0, nan_value, 20}, 0));
}

TEST_CASE("overlap of touching, nested, identical and inverted boxes") {
  const Box a{0, 0, 9, 9};
  CHECK(iou(a, a) == 1);
  CHECK(iou(a, {9, 9, 18, 18}) == 1.0f / 199);  // inclusive corners share one pixel
  CHECK(iou(a, {10, 0, 19, 9}) == 0);
  CHECK(iou(a, {0, 0, 4, 9}) == 0.5f);
  CHECK_FALSE(iou(a, {9, 9, 0, 0}) > 0);  // area 64 of two negative sides, no intersection
  CHECK_FALSE(iou(a, {nan_value, 0, 9, 9}) > 0);
  CHECK(iou(a, {3, 2, 20, 7}) == iou({3, 2, 20, 7}, a));
}
