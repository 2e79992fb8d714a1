// The functions of kernels/cuda/ptx.h, which documents them, by the emulator.
#pragma once

#include <cstdint>

#include "tests/simt/engine.h"
#include "tests/simt/mma.h"

namespace frcnn::cuda {

using simt::Site;

template <int bytes>
void cp_async(void* shared, const void* global) {
  static_assert(bytes == 4 || bytes == 8 || bytes == 16, "cp.async copies 4, 8 or 16 bytes");
  simt::async_copy(shared, global, bytes, bytes);
}
template <int bytes>
void cp_async_zfill(void* shared, const void* global, int source_bytes) {
  static_assert(bytes == 4 || bytes == 8 || bytes == 16, "cp.async copies 4, 8 or 16 bytes");
  simt::async_copy(shared, global, bytes, source_bytes);
}
inline void cp_async_commit_group() { simt::async_commit(); }
template <int in_flight>
void cp_async_wait_group() {
  static_assert(in_flight >= 0, "a number of groups");
  simt::async_wait(in_flight);
}
inline void cp_async_wait_all() { simt::async_wait(-1); }

inline void ldmatrix_x1(std::uint32_t (&r)[1], const void* row, Site site = Site::here()) {
  simt::ldmatrix<1, false>(r, row, "ldmatrix.x1", site);
}
inline void ldmatrix_x2(std::uint32_t (&r)[2], const void* row, Site site = Site::here()) {
  simt::ldmatrix<2, false>(r, row, "ldmatrix.x2", site);
}
inline void ldmatrix_x4(std::uint32_t (&r)[4], const void* row, Site site = Site::here()) {
  simt::ldmatrix<4, false>(r, row, "ldmatrix.x4", site);
}
inline void ldmatrix_x1_trans(std::uint32_t (&r)[1], const void* row, Site site = Site::here()) {
  simt::ldmatrix<1, true>(r, row, "ldmatrix.x1.trans", site);
}
inline void ldmatrix_x2_trans(std::uint32_t (&r)[2], const void* row, Site site = Site::here()) {
  simt::ldmatrix<2, true>(r, row, "ldmatrix.x2.trans", site);
}
inline void ldmatrix_x4_trans(std::uint32_t (&r)[4], const void* row, Site site = Site::here()) {
  simt::ldmatrix<4, true>(r, row, "ldmatrix.x4.trans", site);
}

inline void mma_m16n8k16_f16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                             Site site = Site::here()) {
  simt::mma(d, a, b, "mma.m16n8k16.f16", simt::multiply_16bit<simt::half_to_float>, site);
}
inline void mma_m16n8k16_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                              Site site = Site::here()) {
  simt::mma(d, a, b, "mma.m16n8k16.bf16", simt::multiply_16bit<simt::bfloat16_to_float>, site);
}
inline void mma_m16n8k8_tf32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                             Site site = Site::here()) {
  simt::mma(d, a, b, "mma.m16n8k8.tf32", simt::multiply_tf32, site);
}
inline std::uint32_t cvt_rna_tf32(float value) { return simt::round_to_tf32(value); }

inline std::uint32_t ld_acquire(const std::uint32_t* address) {
  return __atomic_load_n(address, __ATOMIC_ACQUIRE);
}
inline void st_release(std::uint32_t* address, std::uint32_t value) {
  __atomic_store_n(address, value, __ATOMIC_RELEASE);
}
inline std::uint32_t atom_add_acq_rel(std::uint32_t* address, std::uint32_t value) {
  return __atomic_fetch_add(address, value, __ATOMIC_ACQ_REL);
}
template <class Done>
void spin_wait(Done done, Site site = Site::here()) {
  while (!done()) simt::spin(site);
}

}  // namespace frcnn::cuda
