// How a warp multiplies: tiles of A (rows x k) and B (columns x k, k innermost) in shared memory, sums in
// registers. Each arithmetic is one class with the same face, so that one implicit-GEMM kernel serves them
// all. A step takes 32 bytes of k: 16 elements of 16 bits, or 8 of 32.
#pragma once

#include <cstdint>

#include "device.h"
#include "ptx.h"

namespace frcnn::cuda {

struct Fp16 {
  using Stored = half;
  static constexpr const char* name = "fp16";
  static __device__ __forceinline__ void mma(float (&d)[4], const std::uint32_t (&a)[4],
                                             const std::uint32_t (&b)[2]) {
    mma_m16n8k16_f16(d, a, b);
  }
};

struct Bf16 {
  using Stored = nv_bfloat16;
  static constexpr const char* name = "bf16";
  static __device__ __forceinline__ void mma(float (&d)[4], const std::uint32_t (&a)[4],
                                             const std::uint32_t (&b)[2]) {
    mma_m16n8k16_bf16(d, a, b);
  }
};

struct Tf32 {
  using Stored = float;
  static constexpr const char* name = "tf32";
  static __device__ __forceinline__ void mma(float (&d)[4], const std::uint32_t (&a)[4],
                                             const std::uint32_t (&b)[2]) {
    std::uint32_t x[4], y[2];
    for (int i = 0; i < 4; ++i) x[i] = cvt_rna_tf32(__uint_as_float(a[i]));
    for (int i = 0; i < 2; ++i) y[i] = cvt_rna_tf32(__uint_as_float(b[i]));
    mma_m16n8k8_tf32(d, x, y);
  }
};

// Each operand as the sum of two TF32 numbers; of the four products the smallest is left out. The small ones
// go first.
struct Tf32x3 {
  using Stored = float;
  static constexpr const char* name = "tf32x3";
  static __device__ __forceinline__ void split(std::uint32_t v, std::uint32_t& high, std::uint32_t& low) {
    high = cvt_rna_tf32(__uint_as_float(v));
    low = cvt_rna_tf32(__fsub_rn(__uint_as_float(v), __uint_as_float(high)));
  }
  static __device__ __forceinline__ void mma(float (&d)[4], const std::uint32_t (&a)[4],
                                             const std::uint32_t (&b)[2]) {
    std::uint32_t ah[4], al[4], bh[2], bl[2];
    for (int i = 0; i < 4; ++i) split(a[i], ah[i], al[i]);
    for (int i = 0; i < 2; ++i) split(b[i], bh[i], bl[i]);
    mma_m16n8k8_tf32(d, al, bh);
    mma_m16n8k8_tf32(d, ah, bl);
    mma_m16n8k8_tf32(d, ah, bh);
  }
};

struct Fp32;

// f(row, column, value) for every sum that this lane holds of fragments of 16 rows and 8 columns.
template <int down, int across, class F>
__device__ __forceinline__ void for_each_sum(const float (&sum)[down][across][4], F&& f) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < down; ++i)
#pragma unroll
    for (int j = 0; j < across; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) f(i * 16 + lane / 4 + e / 2 * 8, j * 8 + lane % 4 * 2 + e % 2, sum[i][j][e]);
}

// rows x columns of a warp's result on tensor cores. A fragment of A is four 8x(16 bytes) matrices, one
// ldmatrix; a fragment pair of B likewise covers 16 columns.
template <class Math, int rows, int columns>
class WarpTile {
 public:
  static_assert(rows % 16 == 0 && columns % 16 == 0, "ldmatrix.x4 covers 16 rows and 16 columns");
  using T = typename Math::Stored;
  static constexpr int step = 32 / static_cast<int>(sizeof(T));

  // a, b: first row and column of the tile at the current k, rows `pitch` elements apart.
  __device__ __forceinline__ void multiply(const T* a, const T* b, int pitch) {
    constexpr int half_step = step / 2;
    const int lane = threadIdx.x % 32;
    std::uint32_t fb[columns / 8][2];
#pragma unroll
    for (int j = 0; j < columns / 16; ++j) {
      std::uint32_t r[4];
      ldmatrix_x4(r, b + (j * 16 + lane % 8 + lane / 16 * 8) * pitch + lane / 8 % 2 * half_step);
      fb[2 * j][0] = r[0];
      fb[2 * j][1] = r[1];
      fb[2 * j + 1][0] = r[2];
      fb[2 * j + 1][1] = r[3];
    }
#pragma unroll
    for (int i = 0; i < rows / 16; ++i) {
      std::uint32_t fa[4];
      ldmatrix_x4(fa, a + (i * 16 + lane % 16) * pitch + lane / 16 * half_step);
#pragma unroll
      for (int j = 0; j < columns / 8; ++j) Math::mma(sum_[i][j], fa, fb[j]);
    }
  }

  // The same with A from anywhere, one element of 16 or 32 bits at a time: at(lower, k) is that of row
  // lane / 4, or eight below it.
  template <class At>
  __device__ __forceinline__ void multiply_gathered(const At& at, const T* b, int pitch) {
    static_assert(rows == 16, "a lane knows two rows");
    constexpr int half_step = step / 2;
    const int lane = threadIdx.x % 32;
    std::uint32_t fa[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int word = lane % 4 + i / 2 * 4;
      if constexpr (sizeof(T) == 4) {
        fa[i] = at(i % 2, word);
      } else {
        fa[i] = static_cast<std::uint32_t>(at(i % 2, 2 * word)) |
                static_cast<std::uint32_t>(at(i % 2, 2 * word + 1)) << 16;
      }
    }
#pragma unroll
    for (int j = 0; j < columns / 16; ++j) {
      std::uint32_t r[4];
      ldmatrix_x4(r, b + (j * 16 + lane % 8 + lane / 16 * 8) * pitch + lane / 8 % 2 * half_step);
      const std::uint32_t fb[2][2] = {{r[0], r[1]}, {r[2], r[3]}};
      Math::mma(sum_[0][2 * j], fa, fb[0]);
      Math::mma(sum_[0][2 * j + 1], fa, fb[1]);
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

// The exact path: fp32 products summed in fp32 in the order of k, on the ordinary units. Each lane takes
// every eighth row and every fourth column.
struct Fp32 {
  using Stored = float;
  static constexpr const char* name = "fp32";
};

template <int rows, int columns>
class WarpTile<Fp32, rows, columns> {
 public:
  using T = float;
  static constexpr int step = 8;

  // Two k at a time: loads of 8 bytes, and operands that still leave room for two blocks' registers.
  __device__ __forceinline__ void multiply(const float* a, const float* b, int pitch) {
    const int lane = threadIdx.x % 32;
#pragma unroll 2
    for (int k = 0; k < step; k += 2) {
      float2 x[rows / 8], y[columns / 4];
#pragma unroll
      for (int i = 0; i < rows / 8; ++i) x[i] = pair_at(a + (lane / 4 + 8 * i) * pitch + k);
#pragma unroll
      for (int j = 0; j < columns / 4; ++j) y[j] = pair_at(b + (lane % 4 + 4 * j) * pitch + k);
#pragma unroll
      for (int i = 0; i < rows / 8; ++i)
#pragma unroll
        for (int j = 0; j < columns / 4; ++j)
          sum_[i][j] = __fmaf_rn(x[i].y, y[j].y, __fmaf_rn(x[i].x, y[j].x, sum_[i][j]));
    }
  }

  template <class At>
  __device__ __forceinline__ void multiply_gathered(const At& at, const float* b, int pitch) {
    static_assert(rows == 16, "a lane knows two rows");
    const int lane = threadIdx.x % 32;
#pragma unroll 2
    for (int k = 0; k < step; k += 2) {
      float2 x[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) x[i] = {__uint_as_float(at(i, k)), __uint_as_float(at(i, k + 1))};
#pragma unroll
      for (int j = 0; j < columns / 4; ++j) {
        const float2 y = pair_at(b + (lane % 4 + 4 * j) * pitch + k);
#pragma unroll
        for (int i = 0; i < 2; ++i) sum_[i][j] = __fmaf_rn(x[i].y, y.y, __fmaf_rn(x[i].x, y.x, sum_[i][j]));
      }
    }
  }

  template <class F>
  __device__ __forceinline__ void for_each(F&& f) const {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < rows / 8; ++i)
#pragma unroll
      for (int j = 0; j < columns / 4; ++j) f(lane / 4 + 8 * i, lane % 4 + 4 * j, sum_[i][j]);
  }

 private:
  static __device__ __forceinline__ float2 pair_at(const float* p) {
    return *reinterpret_cast<const float2*>(p);
  }

  float sum_[rows / 8][columns / 4] = {};
};

}  // namespace frcnn::cuda
