// __half and __nv_bfloat16 of cuda_fp16.h and cuda_bf16.h as small host types: the storage, the conversions
// (round to nearest even, one canonical NaN), and arithmetic rounded after every operation. A float holds the
// exact result of one operation on two such numbers closely enough (24 >= 2 * 11 + 2 bits) that rounding
// twice changes nothing.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "tests/simt/vector_types.h"

namespace frcnn::simt {

inline std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float float_of(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline std::uint16_t float_to_half(float value) {
  const std::uint32_t bits = bits_of(value), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7fff;
  if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // 65520 and up
  if (magnitude < 0x38800000u) {
    // Below 2^-14: adding 0.5 leaves the multiple of 2^-24 in the low bits, rounded by the addition.
    const float shifted = float_of(magnitude) + 0.5f;
    return static_cast<std::uint16_t>(sign | (bits_of(shifted) - bits_of(0.5f)));
  }
  const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

inline float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000u) << 16, magnitude = half & 0x7fffu;
  if (magnitude >= 0x7c00u) return float_of(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  if (magnitude < 0x400u) {
    const float value = static_cast<float>(magnitude) * 0x1p-24f;
    return sign ? -value : value;
  }
  return float_of(sign | ((magnitude << 13) + 0x38000000u));
}

inline std::uint16_t float_to_bfloat16(float value) {
  const std::uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline float bfloat16_to_float(std::uint16_t bfloat16) { return float_of(std::uint32_t{bfloat16} << 16); }

}  // namespace frcnn::simt

// Trivial to construct, so that a shared array of them is not initialised by anybody.
#define FRCNN_SIMT_SHORT_FLOAT(type, pair, encode, decode)                                              \
  struct alignas(2) type {                                                                              \
    std::uint16_t bits;                                                                                 \
    type() = default;                                                                                   \
    type(float v) : bits(frcnn::simt::encode(v)) {}                                                     \
    type(double v) : type(static_cast<float>(v)) {}                                                     \
    type(int v) : type(static_cast<float>(v)) {}                                                        \
    operator float() const { return frcnn::simt::decode(bits); }                                        \
  };                                                                                                    \
  inline type operator+(type a, type b) { return type(static_cast<float>(a) + static_cast<float>(b)); } \
  inline type operator-(type a, type b) { return type(static_cast<float>(a) - static_cast<float>(b)); } \
  inline type operator*(type a, type b) { return type(static_cast<float>(a) * static_cast<float>(b)); } \
  inline type operator/(type a, type b) { return type(static_cast<float>(a) / static_cast<float>(b)); } \
  inline type operator-(type a) {                                                                       \
    a.bits ^= 0x8000u;                                                                                  \
    return a;                                                                                           \
  }                                                                                                     \
  inline type& operator+=(type& a, type b) { return a = a + b; }                                        \
  inline type& operator-=(type& a, type b) { return a = a - b; }                                        \
  inline type& operator*=(type& a, type b) { return a = a * b; }                                        \
  inline bool operator==(type a, type b) { return static_cast<float>(a) == static_cast<float>(b); }     \
  inline bool operator!=(type a, type b) { return static_cast<float>(a) != static_cast<float>(b); }     \
  inline bool operator<(type a, type b) { return static_cast<float>(a) < static_cast<float>(b); }       \
  inline bool operator>(type a, type b) { return static_cast<float>(a) > static_cast<float>(b); }       \
  inline bool operator<=(type a, type b) { return static_cast<float>(a) <= static_cast<float>(b); }     \
  inline bool operator>=(type a, type b) { return static_cast<float>(a) >= static_cast<float>(b); }     \
  struct alignas(4) pair {                                                                              \
    type x, y;                                                                                          \
  };                                                                                                    \
  inline pair operator+(pair a, pair b) { return {a.x + b.x, a.y + b.y}; }                              \
  inline pair operator-(pair a, pair b) { return {a.x - b.x, a.y - b.y}; }                              \
  inline pair operator*(pair a, pair b) { return {a.x * b.x, a.y * b.y}; }                              \
  /* The smaller or larger of two; a NaN only where both are, as fmin and fmax. */                      \
  inline type __hmin(type a, type b) {                                                                  \
    return type(std::fmin(static_cast<float>(a), static_cast<float>(b)));                               \
  }                                                                                                     \
  inline type __hmax(type a, type b) {                                                                  \
    return type(std::fmax(static_cast<float>(a), static_cast<float>(b)));                               \
  }                                                                                                     \
  inline type __hadd(type a, type b) { return a + b; }                                                  \
  inline type __hsub(type a, type b) { return a - b; }                                                  \
  inline type __hmul(type a, type b) { return a * b; }                                                  \
  inline bool __hisnan(type a) { return std::isnan(static_cast<float>(a)); }                            \
  inline bool __heq(type a, type b) { return a == b; }                                                  \
  inline bool __hlt(type a, type b) { return a < b; }                                                   \
  inline bool __hgt(type a, type b) { return a > b; }                                                   \
  inline pair __hadd2(pair a, pair b) { return a + b; }                                                 \
  inline pair __hmul2(pair a, pair b) { return a * b; }                                                 \
  inline pair __hmax2(pair a, pair b) { return {__hmax(a.x, b.x), __hmax(a.y, b.y)}; }                  \
  inline pair __hmin2(pair a, pair b) { return {__hmin(a.x, b.x), __hmin(a.y, b.y)}; }

FRCNN_SIMT_SHORT_FLOAT(__half, __half2, float_to_half, half_to_float)
FRCNN_SIMT_SHORT_FLOAT(__nv_bfloat16, __nv_bfloat162, float_to_bfloat16, bfloat16_to_float)
#undef FRCNN_SIMT_SHORT_FLOAT

using half = __half;
using half2 = __half2;
using nv_bfloat16 = __nv_bfloat16;
using nv_bfloat162 = __nv_bfloat162;

inline half __float2half(float v) { return half(v); }
inline half __float2half_rn(float v) { return half(v); }
inline float __half2float(half v) { return v; }
inline half __ushort_as_half(unsigned short bits) {
  half h;
  h.bits = bits;
  return h;
}
inline unsigned short __half_as_ushort(half v) { return v.bits; }
inline half2 __halves2half2(half x, half y) { return {x, y}; }
inline half2 __floats2half2_rn(float x, float y) { return {half(x), half(y)}; }
inline half2 __float22half2_rn(float2 v) { return {half(v.x), half(v.y)}; }
inline half2 __float2half2_rn(float v) { return {half(v), half(v)}; }
inline half2 __half2half2(half v) { return {v, v}; }
inline float2 __half22float2(half2 v) { return {v.x, v.y}; }
inline half __low2half(half2 v) { return v.x; }
inline half __high2half(half2 v) { return v.y; }
inline float __low2float(half2 v) { return v.x; }
inline float __high2float(half2 v) { return v.y; }
inline half2 make_half2(half x, half y) { return {x, y}; }

inline nv_bfloat16 __float2bfloat16(float v) { return nv_bfloat16(v); }
inline nv_bfloat16 __float2bfloat16_rn(float v) { return nv_bfloat16(v); }
inline float __bfloat162float(nv_bfloat16 v) { return v; }
inline nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
  nv_bfloat16 b;
  b.bits = bits;
  return b;
}
inline unsigned short __bfloat16_as_ushort(nv_bfloat16 v) { return v.bits; }
inline nv_bfloat162 __halves2bfloat162(nv_bfloat16 x, nv_bfloat16 y) { return {x, y}; }
inline nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {nv_bfloat16(x), nv_bfloat16(y)}; }
inline nv_bfloat162 __float22bfloat162_rn(float2 v) { return {nv_bfloat16(v.x), nv_bfloat16(v.y)}; }
inline nv_bfloat162 __bfloat162bfloat162(nv_bfloat16 v) { return {v, v}; }
inline float2 __bfloat1622float2(nv_bfloat162 v) { return {v.x, v.y}; }
inline nv_bfloat16 __low2bfloat16(nv_bfloat162 v) { return v.x; }
inline nv_bfloat16 __high2bfloat16(nv_bfloat162 v) { return v.y; }
inline nv_bfloat162 make_bfloat162(nv_bfloat16 x, nv_bfloat16 y) { return {x, y}; }
