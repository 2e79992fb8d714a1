// How a program computes: what its maps are stored as, and what its multiplications keep.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "graph/tensor.h"

namespace frcnn {

// fp32:   stored and multiplied in fp32, the reference on every device.
// tf32x3: stored in fp32, each product made of three TF32 ones (about fp32's error on tensor cores).
// tf32:   stored in fp32, products of operands rounded to TF32.
// fp16, bf16: maps of the trunk and head stored in 16 bits, sums in fp32. Scores, deltas and boxes stay fp32 throughout.
enum class Precision : std::uint8_t { fp32, tf32x3, tf32, fp16, bf16 };
inline constexpr std::array<std::string_view, 5> precision_names{"fp32", "tf32x3", "tf32", "fp16", "bf16"};

constexpr std::string_view name_of(Precision precision) { return precision_names[static_cast<std::size_t>(precision)]; }
Precision parse_precision(std::string_view name);      // throws Error(invalid_argument) listing the names there are

constexpr DType storage_of(Precision precision) {      // of the maps of the trunk and head
  return precision == Precision::fp16 ? DType::f16 : precision == Precision::bf16 ? DType::bf16 : DType::f32;
}

}  // namespace frcnn
