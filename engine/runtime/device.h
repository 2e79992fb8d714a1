// A device runs prepared kernels on memory of its own. The engine knows devices only through this interface.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "frcnn/error.h"
#include "graph/graph.h"
#include "graph/lower.h"
#include "graph/precision.h"
#include "kernels.h"

namespace frcnn {

// Work that Device::record() kept, for replay(). Gives back what it takes of the device when it goes; not to be
// destroyed while it is replayed.
class Recording {
 public:
  virtual ~Recording() = default;
};

// What a device was asked for since it was made.
struct DeviceCounts {
  std::int64_t allocations = 0;       // of device memory, and of host memory by allocate_host()
  std::int64_t synchronizations = 0;  // times that the host waited for it
};

// For one thread at a time; memory may be freed by any.
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
  // Whether the first and the last of these bytes are memory of this device that kernels can read and the
  // host did not get for it; what lies between is not asked for. Never on the CPU.
  virtual bool holds(const void*, std::size_t) const { return false; }
  virtual int host_threads() const { return 1; }                    // that may work for it while nothing runs
  virtual bool stages_can_be_timed() const = 0;                     // by synchronising between nodes

  // Whether it records. One that does not runs everything node by node.
  virtual bool records() const { return false; }
  // What `work` queues with queue_upload(), queue_download() and kernels on stream(), kept to be replayed as one
  // piece; nothing of it runs now. Addresses and the kernels' arguments are kept as they are, the memory they point
  // to is read and written at the replay and must outlive the recording. `work` neither allocates, frees nor waits.
  // Throws what `work` throws, else Error(out_of_memory) or Error(device); the device then goes on as if nothing
  // had been recorded.
  virtual std::unique_ptr<Recording> record(const std::function<void()>& work) {
    static_cast<void>(work);
    throw Error(ErrorCode::unsupported, name() + ": does not record");
  }
  // Queued in order with everything else. `recording` is this device's.
  virtual void replay(const Recording& recording) {
    static_cast<void>(recording);
    throw Error(ErrorCode::unsupported, name() + ": does not record");
  }
  virtual DeviceCounts counts() const { return {}; }
  // Those that it may take kernels from, with versions: "cuDNN 9.19.0".
  virtual std::vector<std::string> libraries() const { return {}; }
};

// high: where both wait for a free multiprocessor, blocks of this device's kernels start before those of devices made
// with normal. For sessions that answer requests beside others that work through a batch.
enum class StreamPriority : std::uint8_t { normal, high };

// Whose kernels a GPU runs convolutions and fully connected layers with. The libraries, cuDNN and cuBLASLt, are
// looked for when the device is made.
enum class Algo : std::uint8_t {
  ours,       // no library is opened
  cudnn,      // the libraries' where they take the layer, ours elsewhere; an error without both libraries
  automatic,  // whatever was measured to be faster for the layer on this GPU; ours for what was not measured
};
inline constexpr std::array<std::string_view, 3> algo_names{"ours", "cudnn", "auto"};

// How a GPU gets its work.
struct GpuOptions {
  bool graphs = true;  // programs that run again are recorded as one CUDA graph each
  StreamPriority priority = StreamPriority::normal;
  Algo algo = Algo::ours;
  // Algo::automatic: layers that were not measured yet are, when a program with them is made, as the first request of a
  // size makes one. Without this nothing is ever measured.
  bool tune = false;
  std::string algo_cache = {};  // Algo::automatic: the file that keeps what was measured; default_algo_cache()
};

// The CPU: oneDNN for convolution and matrix products, plain C++ for the rest. threads <= 0: as many as the machine
// has. Allocations are reserved address space; pages cost memory when first touched. Throws Error(unsupported) for
// precisions other than fp32 and, on processors with AVX-512 BF16 or AMX, bf16.
std::shared_ptr<Device> make_cpu_device(int threads = 0, Precision precision = Precision::fp32);

// CUDA device `index`, in builds that have CUDA. Throws Error(unsupported) that says what is missing (driver, device,
// compute capability 8.0, code for it in this build), Error(out_of_memory) without room for a context and the kernels,
// Error(device) otherwise; of gpu.algo_cache Error(io) or Error(bad_file). Every call makes it the calling thread's
// current CUDA device and leaves it so: a program with CUDA code of its own calls cudaSetDevice() again afterwards.
std::shared_ptr<Device> make_cuda_device(int index, Precision precision, const GpuOptions& gpu = {});

// What there is of CUDA, for people to read. Takes no device into use; an empty driver or runtime means none.
struct CudaFindings {
  std::string runtime;                         // version in this build
  std::string driver;                          // version that the machine's driver serves
  std::string problem;                         // why there is no device, if there is none
  std::vector<std::string> devices;            // one line each, in the order of their numbers
};
CudaFindings find_cuda();

// For each library that Algo takes kernels from its version and file, or why it is of no use: opens them all. Empty in
// builds without CUDA.
struct LibraryFinding {
  std::string library, text;
  bool usable = false;
};
std::vector<LibraryFinding> find_gpu_libraries();

// "auto", "cpu", "cuda" (the first one) or "cuda:N". "auto" is cuda:0 where there is one, else the CPU, and
// `why_cpu` gets what is missing; a GPU that is there and fails (full, in a bad state) is an error. Throws
// Error(unsupported) that says why when the device is not there or does not compute in that precision. `threads` is for
// the CPU, `gpu` for the others. Throws Error(invalid_argument) for Algo::cudnn on the CPU, and for tune or algo_cache
// without Algo::automatic.
std::shared_ptr<Device> make_device(const std::string& name, Precision precision = Precision::fp32, int threads = 0,
                                    std::string* why_cpu = nullptr, const GpuOptions& gpu = {});

// bf16 where the device of that name multiplies it in hardware, fp32 otherwise, also when there is no such device.
// Throws Error(invalid_argument) for other names.
Precision fast_precision(const std::string& name);

}  // namespace frcnn
