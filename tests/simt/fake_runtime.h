// The calls of the CUDA runtime that the engine makes, on host memory and with the emulator as the device,
// for tests of engine/runtime/cuda_device.cpp without a GPU. They count themselves, bound the device's
// memory, and fail where a test wants it.
//
// What the engine must not rely on is made visible: fresh device memory holds NaN; a queued copy to the host
// arrives when the stream is synchronised, not before, and the host memory holds NaN until then; the source
// of a queued copy to the device must not have changed by then. A capture keeps launches, with their
// arguments by value, copies and fills, and runs none of them; a replay reads memory as it is then. What a
// capturing thread must not do ends its capture: allocate, free, wait, query, use the default stream or
// memory that is not page-locked. C++ linkage, so that a real runtime in the same program would not be
// mistaken for this one.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <set>
#include <string>

#include "tests/simt/emulator.h"

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInsufficientDriver = 35,
  cudaErrorInvalidDeviceFunction = 98,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorNotReady = 600,
  cudaErrorIllegalAddress = 700,
  cudaErrorLaunchFailure = 719,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901,
  cudaErrorStreamCaptureImplicit = 906,
  cudaErrorStreamCaptureWrongThread = 908,
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
struct cudaDeviceProp {
  char name[256];
  std::size_t totalGlobalMem;
  int major, minor, multiProcessorCount;
};
enum cudaMemoryType {
  cudaMemoryTypeUnregistered = 0,
  cudaMemoryTypeHost = 1,
  cudaMemoryTypeDevice = 2,
  cudaMemoryTypeManaged = 3,
};
struct cudaPointerAttributes {
  cudaMemoryType type;
  int device;
};
struct cudaFuncAttributes {
  int binaryVersion;
};
enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal = 0,
  cudaStreamCaptureModeThreadLocal = 1,
  cudaStreamCaptureModeRelaxed = 2,
};
using cudaGraph_t = struct FrcnnFakeGraph*;
using cudaGraphExec_t = struct FrcnnFakeGraphExec*;
using cudaEvent_t = struct FrcnnFakeEvent*;
inline constexpr unsigned cudaStreamNonBlocking = 1, cudaHostAllocDefault = 0;
#define CUDART_VERSION 13000

cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function);
cudaError_t cudaMalloc(void** memory, std::size_t bytes);
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total);
cudaError_t cudaFree(void* memory);
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* memory);
cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void* memory);
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* memory, int byte, std::size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest);
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphUpload(cudaGraphExec_t executable, cudaStream_t stream);
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable);
cudaError_t cudaEventCreate(cudaEvent_t* event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t error);

namespace frcnn::simt {

// A machine for as long as this lives; one at a time, and nothing of the runtime may be called without one.
// What was allocated on it must be freed before it goes.
class FakeMachine {
 public:
  struct Properties {
    int devices = 1;
    int compute_capability = 90;  // major * 10 + minor
    int multiprocessors = 4;
    std::size_t memory_bytes = std::size_t{1} << 30;  // of each device; all that is allocated gets written to
    int driver = 13000;                               // the CUDA version it serves; 0: none is installed
    bool has_code = true;                             // the program has kernels for this compute capability
  };
  explicit FakeMachine(const Properties& properties);
  FakeMachine() : FakeMachine(Properties()) {}
  ~FakeMachine();
  FakeMachine(const FakeMachine&) = delete;
  FakeMachine& operator=(const FakeMachine&) = delete;

  // The nth call from now on, counted from 1, fails: of the one called `call` ("launch" is a kernel's) or, if
  // that is empty, of all that can fail. Sticky: as does every later call on that device. An error of the
  // launch is the caller's exception, as in launch.h.
  void fail(int nth, cudaError_t error, bool sticky = false, const std::string& call = "");
  void fail_nothing();
  bool failed() const;              // the wanted error was given
  std::string failed_call() const;  // by which call

  std::map<std::string, int> calls() const;  // since reset_counts(); "launch" is among them
  int count(const std::string& call) const;
  int count_all() const;  // of those that can fail
  void reset_counts();
  int replayed_kernels() const;           // since then, by launches of graphs; not among the calls
  std::size_t bytes_in_use() const;       // of all devices
  std::size_t allocations_alive() const;  // of devices and page-locked host memory, streams, graphs, events
  std::size_t graphs_alive() const;       // executable ones
  std::multiset<int> stream_priorities() const;
  // What broke a rule above without an error code, as a sentence; empty if nothing did.
  std::string violation() const;
  // Called in the launching thread in front of every kernel that is queued, captured or replayed.
  void on_launch(std::function<void()> callback);
  // What events say that a kernel takes; 1 ms each until somebody says otherwise.
  void kernel_ms(std::function<double(const void* kernel)> time);
};

}  // namespace frcnn::simt
