// What a product's sums go through on their way out.
#pragma once

#include <cstdint>

#include "device.h"
#include "graph/ops.h"
#include "storage.h"

namespace frcnn::cuda {

// The result of one output channel. A null bias is one of zeros.
__device__ __forceinline__ float finish(const Epilogue& epilogue, const float* bias, int column, float sum) {
  const float v = bias ? sum + bias[column] : sum;
  return epilogue.scale * (epilogue.relu && !(v > 0.0f) ? 0.0f : v);
}

// Writes element `at` of a map stored as f32, f16 or bf16.
__device__ __forceinline__ void store_as(DType stored, void* map, std::int64_t at, float v) {
  if (stored == DType::f32) {
    static_cast<float*>(map)[at] = v;
  } else if (stored == DType::f16) {
    static_cast<half*>(map)[at] = from_float<half>(v);
  } else {
    static_cast<nv_bfloat16*>(map)[at] = from_float<nv_bfloat16>(v);
  }
}

}  // namespace frcnn::cuda
