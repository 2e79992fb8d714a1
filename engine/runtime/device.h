// A device runs prepared kernels on memory of its own. The engine knows devices only through this interface.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

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
  virtual void upload(void* device, const void* host, std::size_t bytes) = 0;
  virtual void download(void* host, const void* device, std::size_t bytes) = 0;
  virtual void fill(void* device, int byte, std::size_t bytes) = 0;
  virtual void synchronize() = 0;
  virtual void* stream() = 0;                                       // null on the CPU
  virtual bool stages_can_be_timed() const = 0;                     // by synchronising between nodes
};

// The CPU: oneDNN for convolution and matrix products, plain C++ for the rest. threads <= 0: as many as the machine
// has. Allocations are reserved address space; pages cost memory when first touched.
std::shared_ptr<Device> make_cpu_device(int threads = 0);

// CUDA device `index`. Throws Error(unsupported) that says what is missing (driver, device, compute capability 8.0).
std::shared_ptr<Device> make_cuda_device(int index, Precision precision);

// "auto", "cpu", "cuda" or "cuda:N". Throws Error(unsupported) that says why when the device is not there or does not
// compute in that precision.
std::shared_ptr<Device> make_device(const std::string& name, Precision precision = Precision::fp32, int threads = 0);

}  // namespace frcnn
