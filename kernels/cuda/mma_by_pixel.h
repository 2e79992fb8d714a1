// How a warp multiplies where k is outermost: tiles of A (k x rows) and B (k x columns) in shared memory,
// sums in registers. f32 operands; the arithmetics are those of mma.h. A step takes 8 of k.
#pragma once

#include "mma.h"

namespace frcnn::cuda {

// On tensor cores. Lane 4 g + t holds rows g and g + 8 of A's fragment and column g of B's, at k = t and t +
// 4; with a pitch that is 8 more than a multiple of 32, the 32 loads of one register come from 32 banks.
template <class Math, int rows, int columns>
class PixelWarpTile {
 public:
  static_assert(rows % 16 == 0 && columns % 8 == 0, "whole fragments");
  static constexpr int step = 8;

  // a, b: first row and column of the tile at the current k; the next k lies one pitch further.
  __device__ __forceinline__ void multiply(const float* a, int pitch_a, const float* b, int pitch_b) {
    const int group = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    std::uint32_t fb[columns / 8][2];
#pragma unroll
    for (int j = 0; j < columns / 8; ++j) {
      fb[j][0] = __float_as_uint(b[t * pitch_b + j * 8 + group]);
      fb[j][1] = __float_as_uint(b[(t + 4) * pitch_b + j * 8 + group]);
    }
#pragma unroll
    for (int i = 0; i < rows / 16; ++i) {
      const std::uint32_t fa[4] = {__float_as_uint(a[t * pitch_a + i * 16 + group]),
                                   __float_as_uint(a[t * pitch_a + i * 16 + group + 8]),
                                   __float_as_uint(a[(t + 4) * pitch_a + i * 16 + group]),
                                   __float_as_uint(a[(t + 4) * pitch_a + i * 16 + group + 8])};
#pragma unroll
      for (int j = 0; j < columns / 8; ++j) Math::mma(sum_[i][j], fa, fb[j]);
    }
  }

  // f(row, column, value) for every sum this lane holds.
  template <class F>
  __device__ __forceinline__ void for_each(F&& f) const {
    for_each_sum(sum_, f);
  }

 private:
  float sum_[rows / 16][columns / 8][4] = {};
};

// The exact path: each lane takes four neighbouring rows of every 32 and four neighbouring columns of every
// 16, so that it loads 16 bytes at a time.
template <int rows, int columns>
class PixelWarpTile<Fp32, rows, columns> {
 public:
  static_assert(rows % 32 == 0 && columns % 16 == 0, "each lane takes four rows and four columns at a time");
  static constexpr int step = 8;

  __device__ __forceinline__ void multiply(const float* a, int pitch_a, const float* b, int pitch_b) {
    const int lane = threadIdx.x % 32;
#pragma unroll 2
    for (int k = 0; k < step; ++k) {
      float x[rows / 8], y[columns / 4];
#pragma unroll
      for (int i = 0; i < rows / 32; ++i) load_four(a + k * pitch_a + i * 32 + lane / 4 * 4, x + 4 * i);
#pragma unroll
      for (int j = 0; j < columns / 16; ++j) load_four(b + k * pitch_b + j * 16 + lane % 4 * 4, y + 4 * j);
#pragma unroll
      for (int i = 0; i < rows / 8; ++i)
#pragma unroll
        for (int j = 0; j < columns / 4; ++j) sum_[i][j] = __fmaf_rn(x[i], y[j], sum_[i][j]);
    }
  }

  template <class F>
  __device__ __forceinline__ void for_each(F&& f) const {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < rows / 8; ++i)
#pragma unroll
      for (int j = 0; j < columns / 4; ++j)
        f(i / 4 * 32 + lane / 4 * 4 + i % 4, j / 4 * 16 + lane % 4 * 4 + j % 4, sum_[i][j]);
  }

 private:
  static __device__ __forceinline__ void load_four(const float* from, float* to) {
    const float4 v = *reinterpret_cast<const float4*>(from);
    to[0] = v.x;
    to[1] = v.y;
    to[2] = v.z;
    to[3] = v.w;
  }

  float sum_[rows / 8][columns / 4] = {};
};

}  // namespace frcnn::cuda
