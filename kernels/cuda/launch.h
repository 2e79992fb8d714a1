// How a kernel is started, and how it takes its dynamic shared memory. There is no other way to do either.
#pragma once

#include <cstddef>
#include <string>
#include <type_traits>

#include "device.h"
#include "frcnn/error.h"

#if !defined(FRCNN_SIMT)
#include <cxxabi.h>

#include <cstdlib>
#endif

namespace frcnn::cuda {

struct LaunchConfig {
  dim3 grid, block;
  std::size_t shared_bytes = 0;  // dynamic; see SharedSize
  cudaStream_t stream = nullptr;
  bool cooperative = false;  // all blocks are resident at once, so they may wait for each other
};

#if defined(FRCNN_SIMT)

// Runs the kernel in the emulator, to its end, unless the stream is being captured. Arguments are copied, as
// into a graph's node.
template <class... Params>
void launch(void (*kernel)(Params...), const LaunchConfig& config, std::type_identity_t<Params>... args) {
  const void* const function = reinterpret_cast<const void*>(kernel);
  const auto start = [kernel, function, config, args...] {
    const std::function<void()> body = [&] { kernel(args...); };
    simt::run({function, config.grid, config.block, config.shared_bytes, config.cooperative, &body});
  };
  if (config.stream) return config.stream->launch(function, start);
  if (FrcnnSimtStream::capturing) FrcnnSimtStream::capturing->refuse_default_stream(function);
  start();
}

#else

inline ErrorCode code_of(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? ErrorCode::out_of_memory : ErrorCode::device;
}

inline std::string kernel_name(const void* kernel) {
  const char* mangled = nullptr;
#if CUDART_VERSION >= 12030
  if (cudaFuncGetName(&mangled, kernel) != cudaSuccess) mangled = nullptr;
#else
  static_cast<void>(kernel);
#endif
  if (!mangled) return "?";
  int status = 1;
  char* const demangled = abi::__cxa_demangle(mangled, nullptr, nullptr, &status);
  const std::string name = status == 0 ? demangled : mangled;
  std::free(demangled);
  return name;
}

// Throws Error(device), or Error(out_of_memory) where the driver found no room for the kernel's code or stack,
// that names the kernel. Clears the error, unless it is one that has ended the context.
inline void check_launch(cudaError_t status, const void* kernel, const LaunchConfig& config,
                         const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  const auto triple = [](const dim3& d) {
    return std::to_string(d.x) + "x" + std::to_string(d.y) + "x" + std::to_string(d.z);
  };
  throw Error(code_of(status), "kernel " + kernel_name(kernel) + " (grid " + triple(config.grid) +
                                     ", block " + triple(config.block) + ", " +
                                     std::to_string(config.shared_bytes) +
                                     " bytes of shared memory): " + call + ": " + cudaGetErrorName(status) +
                                     ", " + cudaGetErrorString(status));
}

// More than 48 KB of dynamic shared memory has to be allowed per kernel and device. Raised when first needed;
// afterwards the kernel's attributes say so and are left alone.
inline void allow_shared_bytes(const void* kernel, const LaunchConfig& config) {
  constexpr std::size_t without_asking = 48 * 1024;
  if (config.shared_bytes <= without_asking) return;
  cudaFuncAttributes attributes{};
  check_launch(cudaFuncGetAttributes(&attributes, kernel), kernel, config, "cudaFuncGetAttributes");
  if (static_cast<std::size_t>(attributes.maxDynamicSharedSizeBytes) >= config.shared_bytes) return;
  int device = 0, most = 0;
  check_launch(cudaGetDevice(&device), kernel, config, "cudaGetDevice");
  check_launch(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), kernel, config,
               "cudaDeviceGetAttribute");
  // To what the device can give at most, not to what this launch asks: so two threads that launch the kernel
  // with different sizes cannot lower it for each other.
  const int dynamic = most - static_cast<int>(attributes.sharedSizeBytes);
  check_launch(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, dynamic), kernel,
               config, "cudaFuncSetAttribute");
}

// Queues the kernel on the stream. Arguments convert as in a call of the kernel. Throws as check_launch() when
// it cannot be started; what goes wrong while it runs is reported by a later call.
template <class... Params>
void launch(void (*kernel)(Params...), const LaunchConfig& config, std::type_identity_t<Params>... args) {
  const void* const function = reinterpret_cast<const void*>(kernel);
  allow_shared_bytes(function, config);
  cudaLaunchConfig_t native{};
  native.gridDim = config.grid;
  native.blockDim = config.block;
  native.dynamicSmemBytes = config.shared_bytes;
  native.stream = config.stream;
  cudaLaunchAttribute attribute{};
  native.attrs = &attribute;
  native.numAttrs = 0;
  if (config.cooperative) {
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
    native.numAttrs = 1;
  }
  void* pointers[sizeof...(Params) + 1] = {const_cast<void*>(static_cast<const void*>(&args))..., nullptr};
  check_launch(cudaLaunchKernelExC(&native, function, pointers), function, config, "cudaLaunchKernelExC");
}

#endif

template <class... Params>
void launch(void (*kernel)(Params...), dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t stream,
            std::type_identity_t<Params>... args) {
  launch(kernel, LaunchConfig{grid, block, shared_bytes, stream}, args...);
}

// Dynamic shared memory is one arena, which a kernel carves into arrays and the host sizes in the same order:
//
//   std::size_t bytes = SharedSize().add<float>(32 * 12).add<half>(64, 128).bytes();     // host
//   SharedCarver carver;                                                                   // kernel
//   float* a = carver.take<float>(32 * 12);
//   half* b = carver.take<half>(64, 128);
//
// A second carver begins at the start again, for a phase that uses the memory anew. Alignments are powers of
// two up to 128 bytes.
inline constexpr std::size_t kSharedAlignment = 16;

class SharedSize {
 public:
  template <class T>
  constexpr SharedSize& add(std::size_t count, std::size_t alignment = kSharedAlignment) {
    bytes_ = (bytes_ + alignment - 1) / alignment * alignment + count * sizeof(T);
    return *this;
  }
  constexpr std::size_t bytes() const { return bytes_; }

 private:
  std::size_t bytes_ = 0;
};

#if defined(FRCNN_SIMT)

class SharedCarver {
 public:
  template <class T>
  T* take(std::size_t count, std::size_t alignment = kSharedAlignment) {
    return static_cast<T*>(simt::carve(launch_offset_, offset_, count * sizeof(T), alignment));
  }

 private:
  std::size_t launch_offset_ = 0, offset_ = 0;
};

#elif defined(__CUDACC__)

extern __shared__ __align__(128) unsigned char shared_arena[];

class SharedCarver {
 public:
  template <class T>
  __device__ __forceinline__ T* take(unsigned count, unsigned alignment = kSharedAlignment) {
    const unsigned begin = (offset_ + alignment - 1) / alignment * alignment;
    offset_ = begin + count * static_cast<unsigned>(sizeof(T));
    return reinterpret_cast<T*>(shared_arena + begin);
  }

 private:
  unsigned offset_ = 0;
};

#endif

}  // namespace frcnn::cuda
