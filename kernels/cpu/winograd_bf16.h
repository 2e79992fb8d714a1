// Winograd F(2x2, 3x3) in bf16, for processors with AVX-512 BF16 and without AMX.
#pragma once

#include <cstddef>
#include <cstdint>

#include "graph/ops.h"

namespace frcnn::cpu::winograd_bf16 {

// A 3x3 convolution of stride 1 over packed NHWC maps of bf16.
struct Problem {
  std::int64_t images, height, width, channels;  // source
  std::int64_t out_height, out_width, outputs;   // destination
  int pad;
  Epilogue epilogue;
};

// By shape only, so that equal requests always take equal paths: where it is faster than oneDNN's direct
// form, and its error is below twice that form's (docs/numerics.md). False where this build has no such
// instructions.
bool pays(const Problem& p);

std::size_t packed_bytes(const Problem& p);
// published: f32 OIHW. Transformed weights in bf16, by position in the tile, in panels of 64 outputs.
void pack(const Problem& p, const float* published, int threads, void* packed);

std::size_t workspace_bytes(const Problem& p, int threads);  // 64-byte aligned

struct Arguments {
  const std::uint16_t* src;
  const void* packed;
  const float* bias;
  std::uint16_t* dst;
  void* workspace;
};
// Results do not depend on `threads`.
void run(const Problem& p, const Arguments& arguments, int threads);

}  // namespace frcnn::cpu::winograd_bf16
