// An array that host and kernels see: plain memory under the emulator, of exactly its size, so that
// AddressSanitizer finds a store past its end; managed memory on a GPU. The instruction tests are written
// against it, so the same source checks the emulator here and the hardware there.
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
struct Managed {
  using value_type = T;
  Managed() = default;
  template <class U>
  Managed(const Managed<U>&) {}
  T* allocate(std::size_t count) {
    void* memory = nullptr;
    if (cudaMallocManaged(&memory, count * sizeof(T)) != cudaSuccess) throw std::bad_alloc();
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, std::size_t) { cudaFree(memory); }
  bool operator==(const Managed&) const { return true; }
};
template <class T>
using Buffer = std::vector<T, Managed<T> >;
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
