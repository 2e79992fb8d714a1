#include "graph/dtype.h"

#include <bit>
#include <cstring>
#include <string>

#include "frcnn/error.h"

namespace frcnn {
namespace {

// memcpy, because a file's tensor need not be aligned for its type; compilers turn it into plain loads.
template <typename T>
T load(const void* base, std::size_t index) {
  T value;
  std::memcpy(&value, static_cast<const std::byte*>(base) + index * sizeof(T), sizeof(T));
  return value;
}

template <typename T>
void widen(const void* src, std::size_t count, float* dst) {
  for (std::size_t i = 0; i < count; ++i) dst[i] = static_cast<float>(load<T>(src, i));
}

}  // namespace

float f16_to_f32(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1fu;
  const std::uint32_t mantissa = bits & 0x3ffu;
  if (exponent == 0x1f) {  // infinity; a NaN keeps its payload and is made quiet
    const std::uint32_t quiet = mantissa != 0 ? 0x400000u : 0u;
    return std::bit_cast<float>(sign | 0x7f800000u | quiet | (mantissa << 13));
  }
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // zero or subnormal: exact
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
}

std::uint16_t f32_to_f16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u)
    return static_cast<std::uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  if (magnitude >= 0x477ff000u)
    return static_cast<std::uint16_t>(sign | 0x7c00u);                   // 65520 and above round to infinity
  if (magnitude < 0x33000000u) return static_cast<std::uint16_t>(sign);  // below 2^-25: zero
  std::uint32_t significand, shift;
  std::uint32_t base = 0;
  if (magnitude < 0x38800000u) {  // below 2^-14: a subnormal, counted in units of 2^-24
    significand = (magnitude & 0x7fffffu) | 0x800000u;
    shift = 126u - (magnitude >> 23);
  } else {
    significand = magnitude & 0x7fffffu;
    shift = 13;
    base = ((magnitude >> 23) - 112u) << 10;
  }
  const std::uint32_t half = 1u << (shift - 1), rest = significand & ((1u << shift) - 1u);
  std::uint32_t result = base + (significand >> shift);
  if (rest > half || (rest == half && (result & 1u)))
    ++result;  // a carry into the exponent is the right value
  return static_cast<std::uint16_t>(sign | result);
}

float bf16_to_f32(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

std::uint16_t f32_to_bf16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

void to_f32(const void* src, DType dtype, std::size_t count, float* dst) {
  if (count == 0) return;
  switch (dtype) {
    case DType::f32:
      std::memcpy(dst, src, count * sizeof(float));
      return;
    case DType::f16:
      for (std::size_t i = 0; i < count; ++i) dst[i] = f16_to_f32(load<std::uint16_t>(src, i));
      return;
    case DType::bf16:
      for (std::size_t i = 0; i < count; ++i) dst[i] = bf16_to_f32(load<std::uint16_t>(src, i));
      return;
    case DType::f64:
      widen<double>(src, count, dst);
      return;
    case DType::i32:
      widen<std::int32_t>(src, count, dst);
      return;
    case DType::i64:
      widen<std::int64_t>(src, count, dst);
      return;
    case DType::u8:
      widen<std::uint8_t>(src, count, dst);
      return;
  }
}

void to_f32(const TensorView& src, float* dst) {
  to_f32(src.data, src.dtype, static_cast<std::size_t>(src.shape.elements()), dst);
}

void from_f32(const float* src, std::size_t count, DType dtype, void* dst) {
  if (dtype != DType::f32 && dtype != DType::f16 && dtype != DType::bf16)
    throw Error(ErrorCode::invalid_argument,
                "from_f32: floats can be stored as f32, f16 or bf16, not as " + std::string(name_of(dtype)));
  if (count == 0) return;
  if (dtype == DType::f32) {
    std::memcpy(dst, src, count * sizeof(float));
    return;
  }
  auto* out = static_cast<std::byte*>(dst);
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint16_t bits = dtype == DType::f16 ? f32_to_f16(src[i]) : f32_to_bf16(src[i]);
    std::memcpy(out + i * sizeof bits, &bits, sizeof bits);
  }
}

}  // namespace frcnn
