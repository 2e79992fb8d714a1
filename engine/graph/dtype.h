// Half and bfloat16 values as bits, and tensors of any type as float32. Plain integer code: every compiler and
// machine gives the same bits. Safe to call from any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "graph/tensor.h"

namespace frcnn {

// Widening is exact. Narrowing rounds to nearest, ties to even; what is too large becomes an infinity, what is too
// small a subnormal or zero, signs kept. A NaN stays a NaN of the same sign (quiet, upper payload bits kept).
float f16_to_f32(std::uint16_t bits);
std::uint16_t f32_to_f16(float value);
float bf16_to_f32(std::uint16_t bits);
std::uint16_t f32_to_bf16(float value);

// dst[i] = src[i] as float32 for all of src.shape.elements(): exact for f32, f16, bf16 and u8, rounded to nearest
// for f64, i32 and i64. src.data may have any alignment (tensors of mapped files follow each other unpadded).
void to_f32(const TensorView& src, float* dst);

// The same for `count` elements at `src`.
void to_f32(const void* src, DType dtype, std::size_t count, float* dst);

// Narrows or copies `count` floats to f32, f16 or bf16 at dst (any alignment). Throws Error(invalid_argument) for others.
void from_f32(const float* src, std::size_t count, DType dtype, void* dst);

}  // namespace frcnn
