#include "tests/simt/samples.h"

#include "launch.h"
#include "ptx.h"

namespace frcnn::simt_test {
namespace {

constexpr int kTile = 32, kDepth = 16, kStages = 3;
constexpr int kPitch = kDepth + 8;  // elements; 48 bytes keep rows 16-byte aligned and spread over the banks

// Block tile 32x32, four warps of 16x16, three stages of cp.async. Shared: 2 * 3 * 32 * 24 elements.
template <class T>
__global__ void __launch_bounds__(128) gemm_kernel(const T* a, const T* b, float* c, int m, int n, int k) {
  cuda::SharedCarver carver;
  T* const tile_a = carver.take<T>(kStages * kTile * kPitch);
  T* const tile_b = carver.take<T>(kStages * kTile * kPitch);
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int row0 = blockIdx.y * kTile, column0 = blockIdx.x * kTile;
  const int steps = (k + kDepth - 1) / kDepth;

  // Half of the threads copy A, half B: 16 bytes each; what lies outside of the matrix becomes zero.
  const auto load = [&](int step) {
    const bool second = thread >= 64;
    const int row = thread % 64 / 2, column = thread % 2 * 8, at = step * kDepth + column;
    const int global_row = (second ? column0 : row0) + row;
    const bool inside = global_row < (second ? n : m) && at < k;
    const T* const from = (second ? b : a) + (inside ? static_cast<std::size_t>(global_row) * k + at : 0);
    T* const to = (second ? tile_b : tile_a) + (step % kStages * kTile + row) * kPitch + column;
    cuda::cp_async_zfill<16>(to, from, inside ? 16 : 0);
  };
  for (int step = 0; step < kStages - 1; ++step) {
    if (step < steps) load(step);
    cuda::cp_async_commit_group();
  }
  float d[2][4] = {};
  for (int step = 0; step < steps; ++step) {
    cuda::cp_async_wait_group<kStages - 2>();
    __syncthreads();  // everybody's copies are there, and nobody reads the stage loaded next
    if (step + kStages - 1 < steps) load(step + kStages - 1);
    cuda::cp_async_commit_group();
    const T* const stage_a = tile_a + (step % kStages * kTile + warp % 2 * 16) * kPitch;
    const T* const stage_b = tile_b + (step % kStages * kTile + warp / 2 * 16) * kPitch;
    std::uint32_t fa[4], fb[4];
    cuda::ldmatrix_x4(fa, stage_a + lane % 16 * kPitch + lane / 16 * 8);
    cuda::ldmatrix_x4(fb, stage_b + (lane % 8 + lane / 16 * 8) * kPitch + lane / 8 % 2 * 8);
    for (int j = 0; j < 2; ++j) {
      const std::uint32_t pair[2] = {fb[2 * j], fb[2 * j + 1]};
      if constexpr (sizeof(T) == 2 && std::is_same_v<T, half>) {
        cuda::mma_m16n8k16_f16(d[j], fa, pair);
      } else {
        cuda::mma_m16n8k16_bf16(d[j], fa, pair);
      }
    }
  }
  for (int j = 0; j < 2; ++j) {
    for (int i = 0; i < 4; ++i) {
      const int row = row0 + warp % 2 * 16 + lane / 4 + i / 2 * 8;
      const int column = column0 + warp / 2 * 16 + j * 8 + lane % 4 * 2 + i % 2;
      if (row < m && column < n) c[static_cast<std::size_t>(row) * n + column] = d[j][i];
    }
  }
}

template <class T>
void gemm(const T* a, const T* b, float* c, int m, int n, int k, cudaStream_t stream) {
  const std::size_t shared =
      cuda::SharedSize().add<T>(kStages * kTile * kPitch).template add<T>(kStages * kTile * kPitch).bytes();
  cuda::launch(gemm_kernel<T>, dim3((n + kTile - 1) / kTile, (m + kTile - 1) / kTile), dim3(128), shared,
               stream, a, b, c, m, n, k);
}

// The sum over the block, in every thread.
__device__ float block_sum(float v, float* per_warp) {
  for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(0xffffffffu, v, offset);
  const int warps = blockDim.x / 32;
  if (threadIdx.x % 32 == 0) per_warp[threadIdx.x / 32] = v;
  __syncthreads();
  float total = 0;
  for (int i = 0; i < warps; ++i) total += per_warp[i];
  __syncthreads();
  return total;
}

__global__ void __launch_bounds__(96)
    sum_kernel(const float* x, int n, float* partial, unsigned* counter, float* sum) {
  __shared__ float per_warp[3];
  __shared__ bool last;
  float v = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) v += x[i];
  v = block_sum(v, per_warp);
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = v;
    last = cuda::atom_add_acq_rel(counter, 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  v = 0;
  for (int i = threadIdx.x; i < static_cast<int>(gridDim.x); i += blockDim.x) v += partial[i];
  v = block_sum(v, per_warp);
  if (threadIdx.x == 0) {
    *sum = v;
    *counter = 0;
  }
}

// ready[b] is 1 when the running total after block b lies in the block's last element.
__global__ void __launch_bounds__(64) scan_kernel(int* x, unsigned* ready) {
  cuda::SharedCarver carver;
  int* const values = carver.take<int>(64);
  const int i = threadIdx.x;
  int* const mine = x + blockIdx.x * 64;
  values[i] = mine[i];
  __syncthreads();
  for (int step = 1; step < 64; step *= 2) {
    const int left = i >= step ? values[i - step] : 0;
    __syncthreads();
    values[i] += left;
    __syncthreads();
  }
  int before = 0;
  if (blockIdx.x > 0) {
    const unsigned* const flag = ready + blockIdx.x - 1;
    cuda::spin_wait([&] { return cuda::ld_acquire(flag) != 0; });
    before = mine[-1];
  }
  mine[i] = values[i] + before;
  __syncthreads();  // one thread's release then covers what all of them wrote
  if (i == 0) cuda::st_release(ready + blockIdx.x, 1);
}

}  // namespace

void sample_gemm(const half* a, const half* b, float* c, int m, int n, int k, cudaStream_t stream) {
  gemm(a, b, c, m, n, k, stream);
}
void sample_gemm(const nv_bfloat16* a, const nv_bfloat16* b, float* c, int m, int n, int k,
                 cudaStream_t stream) {
  gemm(a, b, c, m, n, k, stream);
}

void sample_sum(const float* x, int n, int blocks, float* partial, unsigned* counter, float* sum,
                cudaStream_t stream) {
  cuda::launch(sum_kernel, dim3(blocks), dim3(96), 0, stream, x, n, partial, counter, sum);
}

void sample_scan(int* x, int blocks, unsigned* ready, cudaStream_t stream) {
  const cuda::LaunchConfig config{dim3(blocks), dim3(64), cuda::SharedSize().add<int>(64).bytes(), stream,
                                  true};
  cuda::launch(scan_kernel, config, x, ready);
}

}  // namespace frcnn::simt_test
