// A device runs prepared kernels on memory of its own. The engine knows devices only through this interface.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "graph/lower.h"
#include "graph/precision.h"
#include "kernels.h"

namespace frcnn {

class Device {
 public:
  virtual ~Device() = default;
  virtual std::string name() const = 0;                             // "cpu", "cuda:0"
  virtual bool is_host() const = 0;                                 // its memory is the host's
  virtual Precision precision() const = 0;                          // of everything it prepares
  virtual FusionSupport fusions() const = 0;
  virtual Prepared prepare(const Op& op, const KernelSpec& spec) = 0;

  // Device memory, 256-byte aligned; freed when the pointer goes. Throws Error(out_of_memory).
  virtual std::shared_ptr<void> allocate(std::size_t bytes) = 0;
  virtual void upload(void* device, const void* host, std::size_t bytes) = 0;       // done when they return
  virtual void download(void* host, const void* device, std::size_t bytes) = 0;
  // Host memory whose copies to and from the device can be queued; freed when the pointer goes. Throws
  // Error(out_of_memory).
  virtual std::shared_ptr<void> allocate_host(std::size_t bytes) = 0;
  // Queued in order with the kernels: nobody touches the host memory, of allocate_host(), before synchronize().
  virtual void queue_upload(void* device, const void* host, std::size_t bytes) = 0;
  virtual void queue_download(void* host, const void* device, std::size_t bytes) = 0;
  virtual void fill(void* device, int byte, std::size_t bytes) = 0;
  virtual void synchronize() = 0;
  virtual void* stream() = 0;                                       // null on the CPU
  // Whether all of these bytes are memory of this device that kernels can read and the host did not get for it;
  // never on the CPU.
  virtual bool holds(const void*, std::size_t) const { return false; }
  virtual int host_threads() const { return 1; }                    // that may work for it while nothing runs
  virtual bool stages_can_be_timed() const = 0;                     // by synchronising between nodes
};

// The CPU: oneDNN for convolution and matrix products, plain C++ for the rest. threads <= 0: as many as the machine
// has. Allocations are reserved address space; pages cost memory when first touched. Throws Error(unsupported) for
// precisions other than fp32 and, on processors with AVX-512 BF16 or AMX, bf16.
std::shared_ptr<Device> make_cpu_device(int threads = 0, Precision precision = Precision::fp32);

// CUDA device `index`, in builds that have CUDA. Throws Error(unsupported) that says what is missing (driver, device,
// compute capability 8.0, code for it in this build), Error(out_of_memory) without room for a context and the kernels,
// Error(device) otherwise. Every call makes it the calling thread's current CUDA device and leaves it so: a program with
// CUDA code of its own calls cudaSetDevice() again afterwards.
std::shared_ptr<Device> make_cuda_device(int index, Precision precision);

// What there is of CUDA, for people to read. Takes no device into use; an empty driver or runtime means none.
struct CudaFindings {
  std::string runtime;                         // version in this build
  std::string driver;                          // version that the machine's driver serves
  std::string problem;                         // why there is no device, if there is none
  std::vector<std::string> devices;            // one line each, in the order of their numbers
};
CudaFindings find_cuda();

// "auto", "cpu", "cuda" (the first one) or "cuda:N". "auto" is cuda:0 where there is one, else the CPU, and
// `why_cpu` gets what is missing; a GPU that is there and fails (full, in a bad state) is an error. Throws
// Error(unsupported) that says why when the device is not there or does not compute in that precision.
std::shared_ptr<Device> make_device(const std::string& name, Precision precision = Precision::fp32, int threads = 0,
                                    std::string* why_cpu = nullptr);

// bf16 where the device of that name multiplies it in hardware, fp32 otherwise, also when there is no such device.
// Throws Error(invalid_argument) for other names.
Precision fast_precision(const std::string& name);

}  // namespace frcnn
