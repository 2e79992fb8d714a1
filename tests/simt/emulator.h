// CUDA C++ for a host compiler, included through kernels/cuda/device.h when FRCNN_SIMT is defined.
// docs/simt_emulator.md says what it proves.
#pragma once

#ifdef __CUDACC__
#error "the emulator is for host compilers"
#endif

#include <functional>

#include "tests/simt/atomics.h"
#include "tests/simt/engine.h"
#include "tests/simt/half.h"
#include "tests/simt/intrinsics.h"
#include "tests/simt/vector_types.h"
#include "tests/simt/warp.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))
// Constant memory is written by a copy from the host; a kernel parameter is the better place, here and there.
#define __constant__ static

// One copy for the whole process, since AddressSanitizer checks no thread-locals; so with one block alive at
// a time. The declaration in front is executed whenever a thread passes, and complains where several blocks
// are alive. An alignment is written behind: `__shared__ __align__(16) float tile[4][64];`.
#define __shared__                                                                    \
  [[maybe_unused]] const bool FRCNN_SIMT_UNIQUE(frcnn_simt_shared_) =                 \
      (frcnn::simt::note_static_shared(frcnn::simt::Site{__FILE__, __LINE__}), true); \
  static
#define FRCNN_SIMT_UNIQUE(name) FRCNN_SIMT_JOIN(name, __COUNTER__)
#define FRCNN_SIMT_JOIN(a, b) FRCNN_SIMT_JOIN_AGAIN(a, b)
#define FRCNN_SIMT_JOIN_AGAIN(a, b) a##b

#define threadIdx (::frcnn::simt::thread_index())
#define blockIdx (::frcnn::simt::block_index())
#define blockDim (::frcnn::simt::block_dim())
#define gridDim (::frcnn::simt::grid_dim())

// Work is done when launch() returns, so a stream is only a name; one that the fake runtime made counts launches,
// may refuse them, and keeps them while it is being captured.
struct FrcnnSimtStream {
  virtual ~FrcnnSimtStream() = default;
  // Runs `start`, which runs the kernel with a copy of its arguments, or keeps it. Throws what launch() would.
  virtual void launch(const void* kernel, const std::function<void()>& start) = 0;
  virtual void refuse_default_stream(const void* kernel) = 0;  // throws what launch() would

  // The stream whose work this thread is capturing, if it does.
  static inline thread_local FrcnnSimtStream* capturing = nullptr;
};
using cudaStream_t = FrcnnSimtStream*;
