// Boxes in float32: the exponential, decoding, clipping and overlap that every device shares, so that the
// same bits come out everywhere. Boxes are inclusive corners x1,y1,x2,y2 (width = x2 - x1 + 1). Plain inline
// functions; nvcc compiles them for both sides. Nothing here allocates, throws or holds state.
//
// Every operation is one IEEE rounding. Host code must be built without contraction (-ffp-contract=off, which
// the project sets); on the device the wrappers below keep the compiler from fusing a product into a sum.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define FRCNN_HD __host__ __device__
#else
#define FRCNN_HD
#endif

namespace frcnn {

struct Box {
  float x1, y1, x2, y2;
};

namespace ieee {

#ifdef __CUDA_ARCH__
__device__ inline float add(float a, float b) { return __fadd_rn(a, b); }
__device__ inline float sub(float a, float b) { return __fsub_rn(a, b); }
__device__ inline float mul(float a, float b) { return __fmul_rn(a, b); }
__device__ inline float div(float a, float b) { return __fdiv_rn(a, b); }
#else
FRCNN_HD inline float add(float a, float b) { return a + b; }
FRCNN_HD inline float sub(float a, float b) { return a - b; }
FRCNN_HD inline float mul(float a, float b) { return a * b; }
FRCNN_HD inline float div(float a, float b) { return a / b; }
#endif

FRCNN_HD inline std::uint32_t bits(float x) {
  std::uint32_t b;
  std::memcpy(&b, &x, sizeof b);
  return b;
}
FRCNN_HD inline float from_bits(std::uint32_t b) {
  float x;
  std::memcpy(&x, &b, sizeof x);
  return x;
}

}  // namespace ieee

// Neither NaN nor an infinity.
FRCNN_HD inline bool is_finite(float x) { return (ieee::bits(x) & 0x7F800000u) != 0x7F800000u; }

// e^x, at most 1 ulp from the true value everywhere: denormal results included, +infinity above log(FLT_MAX),
// zero below log of half the smallest denormal, NaN for NaN. The libraries' expf differ from each other in
// the last bit, which would move boxes between devices; this one is defined by its operations.
//
// x = k ln2 + r with |r| <= ln2/2. ln2 is split so that k * ln2_high is exact (7 trailing zero bits and more,
// |k| <= 150); what the subtraction of the low part rounds away is carried in `lost`. e^r = 1 + r + r^2 p(r).
FRCNN_HD inline float exp_f32(float x) {
  using namespace ieee;
  constexpr float log2_e = 0x1.715476p+0f, ln2_high = 0x1.62e400p-1f, ln2_low = 0x1.7f7d1cp-20f;
  constexpr float round_to_integer = 0x1.8p23f;  // adding and subtracting it rounds to the nearest integer
  if (x > 0x1.62e42ep+6f) return from_bits(0x7F800000u);
  if (x < -104.0f) return 0.0f;
  if (x != x) return x;
  const float k = sub(add(mul(x, log2_e), round_to_integer), round_to_integer);
  const float high = sub(x, mul(k, ln2_high)), low = mul(k, ln2_low);
  const float r = sub(high, low), lost = sub(sub(high, r), low);
  float p = 0x1.6b6be8p-10f;  // fitted to the interval; near 1/720, 1/120, 1/24, 1/6
  p = add(mul(p, r), 0x1.122f22p-7f);
  p = add(mul(p, r), 0x1.55568ap-5f);
  p = add(mul(p, r), 0x1.5554a4p-3f);
  p = add(mul(p, r), 0.5f);
  const float y = add(1.0f, add(r, add(mul(mul(r, r), p), lost)));
  // Times 2^k in two exact halves but for the last rounding, so that denormal results are rounded once.
  const int half = static_cast<int>(k) / 2, rest = static_cast<int>(k) - half;
  const float first = from_bits(static_cast<std::uint32_t>(half + 127) << 23);
  return mul(mul(y, first), from_bits(static_cast<std::uint32_t>(rest + 127) << 23));
}

// The box that `delta` = dx,dy,dw,dh makes of `from`: width w' = exp(dw) w around the centre dx w + cx. As in
// the release the right edge is cx' + w'/2, without the -1 that would mirror the width, and dw, dh are not
// clamped.
FRCNN_HD inline Box decode(const Box& from, float dx, float dy, float dw, float dh) {
  using namespace ieee;
  const float w = add(sub(from.x2, from.x1), 1.0f), h = add(sub(from.y2, from.y1), 1.0f);
  const float cx = add(mul(dx, w), add(from.x1, mul(0.5f, w)));
  const float cy = add(mul(dy, h), add(from.y1, mul(0.5f, h)));
  const float half_w = mul(0.5f, mul(exp_f32(dw), w)), half_h = mul(0.5f, mul(exp_f32(dh), h));
  return {sub(cx, half_w), sub(cy, half_h), add(cx, half_w), add(cy, half_h)};
}

// v limited to [0, high]; 0 when high is negative. NaN stays NaN, so that checks after this one still see it.
FRCNN_HD inline float clip(float v, float high) {
  const float below = v > high ? high : v;
  return below < 0.0f ? 0.0f : below;
}

// Limits a box to an image: x to [0, width - 1], y to [0, height - 1].
FRCNN_HD inline Box clip(const Box& box, float height, float width) {
  const float right = ieee::sub(width, 1.0f), bottom = ieee::sub(height, 1.0f);
  return {clip(box.x1, right), clip(box.y1, bottom), clip(box.x2, right), clip(box.y2, bottom)};
}

// Both sides at least `min_side`; false where a coordinate is NaN.
FRCNN_HD inline bool is_at_least(const Box& box, float min_side) {
  return ieee::add(ieee::sub(box.x2, box.x1), 1.0f) >= min_side &&
         ieee::add(ieee::sub(box.y2, box.y1), 1.0f) >= min_side;
}

FRCNN_HD inline float area(const Box& box) {
  return ieee::mul(ieee::add(ieee::sub(box.x2, box.x1), 1.0f), ieee::add(ieee::sub(box.y2, box.y1), 1.0f));
}

// Overlap of two boxes of known areas: 0 where they do not meet. Symmetric bit for bit. With an inverted box
// (zero or negative area) the value means nothing but is the same on every device; it may be NaN, which no
// threshold passes.
FRCNN_HD inline float iou(const Box& a, float area_a, const Box& b, float area_b) {
  using namespace ieee;
  const float x1 = a.x1 > b.x1 ? a.x1 : b.x1, y1 = a.y1 > b.y1 ? a.y1 : b.y1;
  const float x2 = a.x2 < b.x2 ? a.x2 : b.x2, y2 = a.y2 < b.y2 ? a.y2 : b.y2;
  const float w = add(sub(x2, x1), 1.0f), h = add(sub(y2, y1), 1.0f);
  const float inter = mul(w > 0.0f ? w : 0.0f, h > 0.0f ? h : 0.0f);
  return div(inter, sub(add(area_a, area_b), inter));
}

FRCNN_HD inline float iou(const Box& a, const Box& b) { return iou(a, area(a), b, area(b)); }

}  // namespace frcnn
