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
#define FRCNN_SIMT_SHORT_FLOAT(type, encode, decode)                                                    \
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
  inline type __hadd(type a, type b) { return a + b; }                                                  \
  inline type __hsub(type a, type b) { return a - b; }                                                  \
  inline type __hmul(type a, type b) { return a * b; }

FRCNN_SIMT_SHORT_FLOAT(__half, float_to_half, half_to_float)
FRCNN_SIMT_SHORT_FLOAT(__nv_bfloat16, float_to_bfloat16, bfloat16_to_float)
#undef FRCNN_SIMT_SHORT_FLOAT

using half = __half;
using nv_bfloat16 = __nv_bfloat16;

inline half __float2half_rn(float v) { return half(v); }
inline float __half2float(half v) { return v; }
inline half __ushort_as_half(unsigned short bits) {
  half h;
  h.bits = bits;
  return h;
}
inline unsigned short __half_as_ushort(half v) { return v.bits; }

inline nv_bfloat16 __float2bfloat16_rn(float v) { return nv_bfloat16(v); }
inline float __bfloat162float(nv_bfloat16 v) { return v; }
inline nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
  nv_bfloat16 b;
  b.bits = bits;
  return b;
}
inline unsigned short __bfloat16_as_ushort(nv_bfloat16 v) { return v.bits; }
