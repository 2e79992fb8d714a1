// Weights as the libraries read them: a row of consecutive values for each output, channels innermost.
#pragma once

#include "cuda/pack_weights.h"
#include "kernels.h"

namespace frcnn::vendor {

// Room that a library may use in one layer, always asked for whole: a smaller image's plan then never needs
// more than a larger one's, whatever the library chooses for it.
inline constexpr std::size_t workspace_bytes = std::size_t{32} << 20;

// Of the published weight [O,I,KH,KW].
WeightPacking filter_packing(const Shape& weight, DType stored);
// Of the published weight [O,I] of a layer that reads `source`, [R,I] or [R,H,W,C].
WeightPacking matrix_packing(const Shape& weight, const Shape& source, DType stored);
// The libraries want a bias in the type of the result; published is f32.
WeightPacking bias_packing(std::int64_t outputs, DType stored);

// What f32, f16 and bf16 operands are multiplied as, for names of kernels: "fp32", "tf32", "fp16", "bf16".
const char* arithmetic_name(DType stored, Precision precision);

}  // namespace frcnn::vendor
