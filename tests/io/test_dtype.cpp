#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "graph/dtype.h"
#include "scratch.h"

namespace frcnn {
namespace {

double f16_value(int bits) {  // by the definition, for finite bits
  const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return (bits & 0x8000) ? -magnitude : magnitude;
}

}  // namespace

TEST_CASE("dtype: every half widens exactly and narrows back") {
  int wrong = 0;
  for (int bits = 0; bits < 65536; ++bits) {
    const float value = f16_to_f32(static_cast<std::uint16_t>(bits));
    if ((bits & 0x7c00) == 0x7c00) {
      wrong += (bits & 0x3ff) ? !std::isnan(value) || !std::isnan(f16_to_f32(f32_to_f16(value))) : !std::isinf(value);
      wrong += std::signbit(value) != ((bits & 0x8000) != 0);
    } else {
      wrong += value != f16_value(bits) || std::signbit(value) != ((bits & 0x8000) != 0);
      wrong += f32_to_f16(value) != bits;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("dtype: floats narrow to the nearest half, ties to even") {
  int wrong = 0;
  for (int bits = 0; bits < 0x7bff; ++bits) {  // between every pair of neighbours
    const double low = f16_value(bits), high = f16_value(bits + 1);
    const float middle = static_cast<float>((low + high) / 2);  // exact: one bit more than a half has
    const int even = (bits & 1) ? bits + 1 : bits;
    wrong += f32_to_f16(middle) != even;
    wrong += f32_to_f16(std::nextafter(middle, -1.0f)) != bits;
    wrong += f32_to_f16(std::nextafter(middle, 1e9f)) != bits + 1;
    wrong += f32_to_f16(-middle) != (even | 0x8000);
  }
  CHECK(wrong == 0);
  CHECK(f32_to_f16(65519.996f) == 0x7bff);
  CHECK(f32_to_f16(65520.0f) == 0x7c00);
  CHECK(f32_to_f16(-1e30f) == 0xfc00);
  CHECK(f32_to_f16(std::numeric_limits<float>::infinity()) == 0x7c00);
  CHECK(f32_to_f16(-0.0f) == 0x8000);
  CHECK(f32_to_f16(std::numeric_limits<float>::denorm_min()) == 0);
  CHECK(std::isnan(f16_to_f32(f32_to_f16(std::bit_cast<float>(0x7f800001u)))));  // its payload does not fit a half
}

TEST_CASE("dtype: bfloat16 keeps every value it has and rounds the others to even") {
  int wrong = 0;
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const float value = bf16_to_f32(static_cast<std::uint16_t>(bits));
    wrong += std::bit_cast<std::uint32_t>(value) != bits << 16;
    wrong += std::isnan(value) ? !std::isnan(bf16_to_f32(f32_to_bf16(value))) : f32_to_bf16(value) != bits;
    if ((bits & 0x7fff) >= 0x7f80) continue;
    wrong += f32_to_bf16(std::bit_cast<float>(bits << 16 | 0x8000u)) != bits + (bits & 1);
    wrong += f32_to_bf16(std::bit_cast<float>(bits << 16 | 0x7fffu)) != bits;
    wrong += f32_to_bf16(std::bit_cast<float>(bits << 16 | 0x8001u)) != bits + 1;
  }
  CHECK(wrong == 0);
  CHECK(f32_to_bf16(std::numeric_limits<float>::max()) == 0x7f80);
  CHECK(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0xff800001u)))));
}

TEST_CASE("dtype: tensors of every type become floats, wherever they lie") {
  const auto check = [](auto example, DType dtype, std::vector<double> numbers) {
    std::vector<unsigned char> bytes(1 + numbers.size() * sizeof example);  // off by one: no alignment
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      const auto value = static_cast<decltype(example)>(numbers[i]);
      std::memcpy(bytes.data() + 1 + i * sizeof value, &value, sizeof value);
    }
    std::vector<float> out(numbers.size(), -99);
    to_f32({bytes.data() + 1, Shape{static_cast<std::int64_t>(numbers.size())}, dtype}, out.data());
    for (std::size_t i = 0; i < numbers.size(); ++i) CHECK(out[i] == static_cast<float>(numbers[i]));
  };
  check(float{}, DType::f32, {1.5, -2.25, 0});
  check(double{}, DType::f64, {0.1, -1e300 * 0, 3});
  check(std::int32_t{}, DType::i32, {-2147483648.0, 7});
  check(std::int64_t{}, DType::i64, {-4611686018427387904.0, 123456789});
  check(std::uint8_t{}, DType::u8, {0, 128, 255});
  check(std::uint16_t{}, DType::f16, {});

  const float values[] = {1.0f, -0.1f, 70000.0f};
  std::uint16_t bits[3];
  float back[3];
  from_f32(values, 3, DType::f16, bits);
  to_f32(bits, DType::f16, 3, back);
  CHECK((back[0] == 1.0f && back[1] == Approx(-0.1).epsilon(1e-3) && std::isinf(back[2])));
  from_f32(values, 3, DType::bf16, bits);
  to_f32(bits, DType::bf16, 3, back);
  CHECK((back[0] == 1.0f && back[1] == Approx(-0.1).epsilon(1e-2) && back[2] == Approx(70000).epsilon(1e-2)));
  scratch::check_error([&] { from_f32(values, 3, DType::i32, bits); }, ErrorCode::invalid_argument, {"i32"});
}

}  // namespace frcnn
