#include "tests/simt/instructions.h"

#include "launch.h"
#include "ptx.h"

namespace frcnn::simt_test {
namespace {

template <Mma kind>
__global__ void mma_kernel(const std::uint32_t* a, const std::uint32_t* b, const float* c, float* d) {
  const int at = blockIdx.x * 32 + threadIdx.x;
  std::uint32_t ra[4], rb[2];
  float rd[4];
  for (int i = 0; i < 4; ++i) ra[i] = a[at * 4 + i];
  for (int i = 0; i < 2; ++i) rb[i] = b[at * 2 + i];
  for (int i = 0; i < 4; ++i) rd[i] = c[at * 4 + i];
  if constexpr (kind == Mma::f16) cuda::mma_m16n8k16_f16(rd, ra, rb);
  if constexpr (kind == Mma::bf16) cuda::mma_m16n8k16_bf16(rd, ra, rb);
  if constexpr (kind == Mma::tf32) cuda::mma_m16n8k8_tf32(rd, ra, rb);
  for (int i = 0; i < 4; ++i) d[at * 4 + i] = rd[i];
}

template <int count, bool transposed>
__global__ void ldmatrix_kernel(const std::uint16_t* source, std::uint32_t* result) {
  cuda::SharedCarver carver;
  std::uint16_t* const tile = carver.take<std::uint16_t>(count * 64);
  const int lane = threadIdx.x;
  for (int i = lane; i < count * 64; i += 32) tile[i] = source[i];
  __syncthreads();
  // Lanes past the last row give an address that nobody reads.
  const std::uint16_t* const row = tile + (lane < count * 8 ? lane * 8 : 0);
  std::uint32_t r[count];
  if constexpr (count == 1 && !transposed) cuda::ldmatrix_x1(r, row);
  if constexpr (count == 2 && !transposed) cuda::ldmatrix_x2(r, row);
  if constexpr (count == 4 && !transposed) cuda::ldmatrix_x4(r, row);
  if constexpr (count == 1 && transposed) cuda::ldmatrix_x1_trans(r, row);
  if constexpr (count == 2 && transposed) cuda::ldmatrix_x2_trans(r, row);
  if constexpr (count == 4 && transposed) cuda::ldmatrix_x4_trans(r, row);
  for (int i = 0; i < count; ++i) result[lane * count + i] = r[i];
}

__global__ void cvt_rna_tf32_kernel(int values, const float* value, std::uint32_t* result) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < values) result[i] = cuda::cvt_rna_tf32(value[i]);
}

template <int bytes>
__global__ void cp_async_kernel(const std::uint8_t* source, const int* source_bytes, std::uint8_t* result) {
  cuda::SharedCarver carver;
  std::uint8_t* const tile = carver.take<std::uint8_t>(blockDim.x * bytes);
  const int at = threadIdx.x * bytes, partial = source_bytes[threadIdx.x];
  if (partial == bytes) {
    cuda::cp_async<bytes>(tile + at, source + at);
  } else {
    cuda::cp_async_zfill<bytes>(tile + at, source + at, partial);
  }
  if constexpr (bytes == 8) {
    cuda::cp_async_wait_all();
  } else {
    cuda::cp_async_commit_group();
    cuda::cp_async_wait_group<0>();
  }
  __syncthreads();
  // Written out by another thread than the one that copied.
  const int other = (blockDim.x - 1 - threadIdx.x) * bytes;
  for (int i = 0; i < bytes; ++i) result[other + i] = tile[other + i];
}

template <Shuffle kind>
__global__ void shuffle_kernel(unsigned mask, int width, const int* argument, const float* value,
                               float* result) {
  const int lane = threadIdx.x;
  float v = value[lane];
  if (mask >> lane & 1u) {
    if constexpr (kind == Shuffle::from) v = __shfl_sync(mask, v, argument[lane], width);
    if constexpr (kind == Shuffle::up) v = __shfl_up_sync(mask, v, argument[0], width);
    if constexpr (kind == Shuffle::down) v = __shfl_down_sync(mask, v, argument[0], width);
    if constexpr (kind == Shuffle::exchange) v = __shfl_xor_sync(mask, v, argument[0], width);
  }
  result[lane] = v;
}

__global__ void votes_kernel(unsigned mask, const std::uint32_t* value, std::uint32_t* result) {
  const int lane = threadIdx.x;
  std::uint32_t* const mine = result + lane * 7;
  for (int i = 0; i < 7; ++i) mine[i] = 0;
  if (!(mask >> lane & 1u)) return;
  const std::uint32_t v = value[lane];
  mine[0] = __ballot_sync(mask, v != 0);
  mine[1] = __any_sync(mask, v != 0);
  mine[2] = __all_sync(mask, v != 0);
  __syncwarp(mask);
  mine[3] = __activemask();
  mine[4] = __match_any_sync(mask, v);
  mine[5] = __reduce_add_sync(mask, v);
  mine[6] = __reduce_max_sync(mask, v);
}

__global__ void atomics_kernel(int threads, const int* value, AtomicCells* cell) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= threads) return;
  const int v = value[i];
  const unsigned bit = 1u << (i & 31);
  atomicAdd(&cell->add_int, v);
  atomicMin(&cell->min_int, v);
  atomicMax(&cell->max_int, v);
  atomicAdd(&cell->add_unsigned, static_cast<unsigned>(i));
  atomicAnd(&cell->and_unsigned, ~bit);
  atomicOr(&cell->or_unsigned, bit);
  atomicXor(&cell->xor_unsigned, bit);
  atomicAdd(&cell->add_ull, 1ull << 33);
  atomicMax(&cell->max_ull, static_cast<unsigned long long>(i) << 40);
  atomicAdd(&cell->add_float, static_cast<float>(v));
  unsigned seen = 0, expected;
  do {
    expected = seen;
    seen = atomicCAS(&cell->swapped_count, expected, expected + 1);
  } while (seen != expected);
  atomicExch(&cell->exchanged, static_cast<unsigned>(i) + 1);
}

__global__ void block_votes_kernel(const int* predicate, int* result) {
  const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const int at = block * static_cast<int>(blockDim.x * blockDim.y * blockDim.z) + thread;
  const int p = predicate[at];
  int* const mine = result + at * 6;
  mine[0] = at;
  mine[1] = __syncthreads_count(p);
  mine[2] = __syncthreads_or(p) != 0;
  mine[3] = __syncthreads_and(p) != 0;
  mine[4] = __popc(static_cast<unsigned>(at)) + 100 * __clz(at) + 10000 * __ffs(at);
  mine[5] = static_cast<int>(__byte_perm(0x33221100u, 0x77665544u, 0x7250u));
}

}  // namespace

void run_mma(Mma kind, int cases, const std::uint32_t* a, const std::uint32_t* b, const float* c, float* d) {
  const auto kernel = kind == Mma::f16    ? mma_kernel<Mma::f16>
                      : kind == Mma::bf16 ? mma_kernel<Mma::bf16>
                                          : mma_kernel<Mma::tf32>;
  cuda::launch(kernel, dim3(cases), dim3(32), 0, nullptr, a, b, c, d);
}

void run_ldmatrix(int count, bool transposed, const std::uint16_t* source, std::uint32_t* result) {
  const auto one = transposed ? ldmatrix_kernel<1, true> : ldmatrix_kernel<1, false>;
  const auto two = transposed ? ldmatrix_kernel<2, true> : ldmatrix_kernel<2, false>;
  const auto four = transposed ? ldmatrix_kernel<4, true> : ldmatrix_kernel<4, false>;
  const std::size_t shared =
      cuda::SharedSize().add<std::uint16_t>(64 * static_cast<std::size_t>(count)).bytes();
  cuda::launch(count == 1   ? one
               : count == 2 ? two
                            : four,
               dim3(1), dim3(32), shared, nullptr, source, result);
}

void run_cvt_rna_tf32(int values, const float* value, std::uint32_t* result) {
  cuda::launch(cvt_rna_tf32_kernel, dim3((values + 63) / 64), dim3(64), 0, nullptr, values, value, result);
}

void run_cp_async(int bytes, int threads, const std::uint8_t* source, const int* source_bytes,
                  std::uint8_t* result) {
  const auto kernel = bytes == 4 ? cp_async_kernel<4> : bytes == 8 ? cp_async_kernel<8> : cp_async_kernel<16>;
  const std::size_t shared =
      cuda::SharedSize().add<std::uint8_t>(static_cast<std::size_t>(threads * bytes)).bytes();
  cuda::launch(kernel, dim3(1), dim3(threads), shared, nullptr, source, source_bytes, result);
}

void run_shuffle(Shuffle kind, unsigned mask, int width, const int* argument, const float* value,
                 float* result) {
  const auto kernel = kind == Shuffle::from   ? shuffle_kernel<Shuffle::from>
                      : kind == Shuffle::up   ? shuffle_kernel<Shuffle::up>
                      : kind == Shuffle::down ? shuffle_kernel<Shuffle::down>
                                              : shuffle_kernel<Shuffle::exchange>;
  cuda::launch(kernel, dim3(1), dim3(32), 0, nullptr, mask, width, argument, value, result);
}

void run_votes(unsigned mask, const std::uint32_t* value, std::uint32_t* result) {
  cuda::launch(votes_kernel, dim3(1), dim3(32), 0, nullptr, mask, value, result);
}

void run_atomics(int threads, const int* value, AtomicCells* cell) {
  cuda::launch(atomics_kernel, dim3((threads + 63) / 64), dim3(64), 0, nullptr, threads, value, cell);
}

void run_block_votes(int blocks, int threads, const int* predicate, int* result) {
  cuda::launch(block_votes_kernel, dim3(1, blocks / 2, 2), dim3(threads / 4, 2, 2), 0, nullptr, predicate,
               result);
}

}  // namespace frcnn::simt_test
