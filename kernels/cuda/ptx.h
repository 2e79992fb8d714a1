// One function per PTX instruction, with the instruction's own meaning; inline assembly lives nowhere else.
// Sections are named as in the PTX ISA 9. Compute capability 8.0 and up. Under the emulator the same
// functions come from tests/simt, with the same layouts and with everything that may go wrong made visible:
// see docs/simt_emulator.md.
//
// cp_async<4|8|16>(shared, global)                  cp.async
//   Starts a copy to shared memory. Both addresses are multiples of its size. 16 bytes bypass L1, fewer do
//   not.
// cp_async_zfill<4|8|16>(shared, global, source_bytes)
//   The same, but only source_bytes (0 to the size) are read and the rest becomes zero. With 0 the source is
//   not touched, but must still be aligned.
// cp_async_commit_group()                           cp.async.commit_group
//   Makes a group of the copies that this thread has issued since the last one.
// cp_async_wait_group<n>(), cp_async_wait_all()     cp.async.wait_group, cp.async.wait_all
//   Until at most the latest n groups of this thread, or no copy at all, are under way. The thread then sees
//   its own copies; the others see them after a barrier.
// ldmatrix_x1|x2|x4[_trans](r, row)                 "Warp-level matrix load instruction: ldmatrix"
//   1, 2 or 4 matrices of 8x8 16-bit elements from shared memory. Lane 8 m + i gives the address of row i of
//   matrix m, a multiple of 16. All 32 lanes together.
// mma_m16n8k16_f16|bf16(d, a, b)                    9.7.14.5.8, "Matrix Fragments for mma.m16n8k16 with
//                                                   floating point type"
//   d += A (16x16, row-major) * B (16x8, column-major), accumulated in fp32. All 32 lanes together.
// mma_m16n8k8_tf32(d, a, b)                         9.7.14.5.7, "Matrix Fragments for mma.m16n8k8"
//   The same of A 16x8 and B 8x8 in tf32: fp32 bits of which the lower 13 are not looked at.
// cvt_rna_tf32(v)                                   cvt.rna.tf32.f32
//   v rounded to tf32, ties away from zero, as fp32 bits.
// ld_acquire(p), st_release(p, v), atom_add_acq_rel(p, v)      device scope, global memory
//   What a thread wrote before a release, other threads see after the acquire that reads it. After a barrier,
//   one thread's release covers what the whole block wrote. For last-block patterns and flags between blocks.
// spin_wait(done)                                   nanosleep
//   Until done() is true: the only way to wait for another block. Needs a cooperative launch, or an order in
//   which the block waited for has already started.
#pragma once

#include <cstdint>

#include "device.h"

#if defined(FRCNN_SIMT)
#include "tests/simt/ptx_emulation.h"
#elif defined(__CUDACC__)

namespace frcnn::cuda {

__device__ __forceinline__ std::uint32_t shared_address(const void* shared) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
}

template <int bytes>
__device__ __forceinline__ void cp_async(void* shared, const void* global) {
  static_assert(bytes == 4 || bytes == 8 || bytes == 16, "cp.async copies 4, 8 or 16 bytes");
  if constexpr (bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(shared_address(shared)), "l"(global),
                 "n"(bytes)
                 : "memory");
  }
}

template <int bytes>
__device__ __forceinline__ void cp_async_zfill(void* shared, const void* global, int source_bytes) {
  static_assert(bytes == 4 || bytes == 8 || bytes == 16, "cp.async copies 4, 8 or 16 bytes");
  if constexpr (bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(source_bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)), "l"(global),
                 "n"(bytes), "r"(source_bytes)
                 : "memory");
  }
}

__device__ __forceinline__ void cp_async_commit_group() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int in_flight>
__device__ __forceinline__ void cp_async_wait_group() {
  static_assert(in_flight >= 0, "a number of groups");
  asm volatile("cp.async.wait_group %0;" ::"n"(in_flight) : "memory");
}

__device__ __forceinline__ void cp_async_wait_all() { asm volatile("cp.async.wait_all;" ::: "memory"); }

__device__ __forceinline__ void ldmatrix_x1(std::uint32_t (&r)[1], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
               : "=r"(r[0])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x2(std::uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x1_trans(std::uint32_t (&r)[1], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
               : "=r"(r[0])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x2_trans(std::uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

__device__ __forceinline__ void mma_m16n8k16_f16(float (&d)[4], const std::uint32_t (&a)[4],
                                                 const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const std::uint32_t (&a)[4],
                                                  const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_m16n8k8_tf32(float (&d)[4], const std::uint32_t (&a)[4],
                                                 const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ std::uint32_t cvt_rna_tf32(float value) {
  std::uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
}

__device__ __forceinline__ std::uint32_t ld_acquire(const std::uint32_t* address) {
  std::uint32_t value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
  return value;
}
__device__ __forceinline__ void st_release(std::uint32_t* address, std::uint32_t value) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
}
__device__ __forceinline__ std::uint32_t atom_add_acq_rel(std::uint32_t* address, std::uint32_t value) {
  std::uint32_t before;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;"
               : "=r"(before)
               : "l"(address), "r"(value)
               : "memory");
  return before;
}
template <class Done>
__device__ __forceinline__ void spin_wait(Done done) {
  while (!done()) asm volatile("nanosleep.u32 %0;" ::"n"(32));
}

}  // namespace frcnn::cuda

#endif
