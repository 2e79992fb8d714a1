// An array that host and kernels see: plain memory under the emulator, of exactly its size, so that
// AddressSanitizer finds a store past its end; page-locked memory, which the device reads and writes, on a
// GPU. The instruction tests are written against it, so the same source checks the emulator here and the
// hardware there.
#pragma once

#include <cstddef>
#include <new>
#include <stdexcept>
#include <vector>

#include "device.h"

namespace frcnn::simt_test {

#if defined(FRCNN_SIMT)

template <class T>
using Buffer = std::vector<T>;
inline void synchronize() {}

// Runs `check` once for every thread order; in hardware there is one that nobody chooses.
template <class Check>
void in_every_order(Check check) {
  for (const simt::Schedule& schedule : simt::kSchedules) {
    simt::Settings settings = simt::settings();
    settings.schedule = schedule;
    const simt::ScopedSettings during(settings);
    check();
  }
}

#else

template <class T>
struct PageLocked {
  using value_type = T;
  PageLocked() = default;
  template <class U>
  PageLocked(const PageLocked<U>&) {}
  T* allocate(std::size_t count) {
    void* memory = nullptr;
    if (cudaHostAlloc(&memory, count * sizeof(T), cudaHostAllocDefault) != cudaSuccess)
      throw std::bad_alloc();
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, std::size_t) { cudaFreeHost(memory); }
  bool operator==(const PageLocked&) const { return true; }
};
template <class T>
using Buffer = std::vector<T, PageLocked<T> >;
inline void synchronize() {
  if (cudaDeviceSynchronize() != cudaSuccess)
    throw std::runtime_error(cudaGetErrorString(cudaGetLastError()));
}

template <class Check>
void in_every_order(Check check) {
  check();
}

#endif

}  // namespace frcnn::simt_test
