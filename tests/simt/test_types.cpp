// The host stand-ins for CUDA's types.
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <type_traits>

#include "catch.h"
#include "device.h"

namespace {

// What a half is, from IEEE 754 rather than from bit tricks.
double half_value(unsigned bits) {
  const int exponent = static_cast<int>(bits >> 10 & 31u), mantissa = static_cast<int>(bits & 0x3ffu);
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return bits & 0x8000u ? -magnitude : magnitude;
}

}  // namespace

static_assert(sizeof(half) == 2 && alignof(half) == 2 && std::is_trivially_default_constructible_v<half>);
static_assert(sizeof(float3) == 12 && alignof(float3) == 4 && sizeof(uchar3) == 3);
static_assert(sizeof(float4) == 16 && alignof(float4) == 16 && alignof(int4) == 16 && alignof(uint2) == 8);
static_assert(alignof(uchar4) == 4 && alignof(ushort4) == 8 && alignof(double2) == 16 &&
              alignof(ulonglong2) == 16);

TEST_CASE("half: every pattern has its value and comes back") {
  for (unsigned bits = 0; bits < 0x10000u; ++bits) {
    const half h = __ushort_as_half(static_cast<unsigned short>(bits));
    const float value = __half2float(h);
    if ((bits & 0x7fffu) > 0x7c00u) {
      if (!std::isnan(value) || __half_as_ushort(__float2half_rn(value)) != 0x7fff) FAIL("NaN " << bits);
    } else if ((bits & 0x7fffu) == 0x7c00u) {
      if (!std::isinf(value) || std::signbit(value) != (bits >= 0x8000u)) FAIL("infinity " << bits);
    } else if (static_cast<double>(value) != half_value(bits)) {
      FAIL(bits << " is " << value << ", not " << half_value(bits));
    }
    if ((bits & 0x7fffu) <= 0x7c00u && __half_as_ushort(__float2half_rn(value)) != bits)
      FAIL("back " << bits);
  }
}

TEST_CASE("half: between two neighbours the nearer is taken, in the middle the even one") {
  for (unsigned bits = 0; bits < 0x7bffu; ++bits) {
    const double low = half_value(bits), high = half_value(bits + 1), middle = (low + high) / 2;
    const auto to = [](double v) {
      return static_cast<unsigned>(__half_as_ushort(__float2half_rn(static_cast<float>(v))));
    };
    const float just_below = std::nextafter(static_cast<float>(middle), 0.0f);
    const float just_above = std::nextafter(static_cast<float>(middle), 1e9f);
    if (to(middle) != bits + (bits & 1u) || to(just_below) != bits || to(just_above) != bits + 1) FAIL(bits);
    if (to(-middle) != (0x8000u | (bits + (bits & 1u)))) FAIL("minus " << bits);
  }
  CHECK(__half_as_ushort(__float2half_rn(65519.996f)) == 0x7bff);
  CHECK(__half_as_ushort(__float2half_rn(65520.0f)) == 0x7c00);
  CHECK(__half_as_ushort(__float2half_rn(-1e30f)) == 0xfc00);
}

TEST_CASE("bfloat16: conversions round to nearest even") {
  for (unsigned bits = 0; bits < 0x7f7fu; ++bits) {
    const float low = __bfloat162float(__ushort_as_bfloat16(static_cast<unsigned short>(bits)));
    const float high = __bfloat162float(__ushort_as_bfloat16(static_cast<unsigned short>(bits + 1)));
    const float middle = static_cast<float>((static_cast<double>(low) + high) / 2);
    const auto to = [](float v) {
      return static_cast<unsigned>(__bfloat16_as_ushort(__float2bfloat16_rn(v)));
    };
    if (to(low) != bits || to(middle) != bits + (bits & 1u)) FAIL(bits);
    if (to(std::nextafter(middle, 0.0f)) != bits || to(std::nextafter(middle, high)) != bits + 1) FAIL(bits);
  }
  CHECK(__bfloat16_as_ushort(__float2bfloat16_rn(std::numeric_limits<float>::quiet_NaN())) == 0x7fff);
  CHECK(__bfloat16_as_ushort(__float2bfloat16_rn(std::numeric_limits<float>::max())) == 0x7f80);
}

TEST_CASE("short floats compute in their own precision") {
  const half one = 1.0f, small = 0x1p-11f;
  CHECK(static_cast<float>(one + small) == 1.0f);
  CHECK(static_cast<float>(half(2048.0f) + one) == 2048.0f);
  CHECK(static_cast<float>(half(3.0f) * half(0.5f)) == 1.5f);
  CHECK(static_cast<float>(nv_bfloat16(256.0f) + nv_bfloat16(1.0f)) == 256.0f);
}

TEST_CASE("conversions to integers saturate") {
  CHECK(__float2int_rn(2.5f) == 2);
  CHECK(__float2int_rn(-3.5f) == -4);
  CHECK(__float2int_rd(-0.5f) == -1);
  CHECK(__float2int_ru(0.25f) == 1);
  CHECK(__float2int_rz(-7.9f) == -7);
  CHECK(__float2int_rn(1e20f) == std::numeric_limits<int>::max());
  CHECK(__float2int_rz(std::numeric_limits<float>::quiet_NaN()) == 0);
  CHECK(__float2uint_rz(-1.0f) == 0u);
}
