// The one place of the engine that sees CUDA. Built where nvcc is, and once more against the emulator of tests/simt.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <type_traits>

#include "cuda/clear_flag.h"
#include "cuda/device.h"
#include "frcnn/error.h"
#include "runtime/cuda_algos.h"
#include "runtime/device.h"

namespace frcnn {
namespace {

ErrorCode code_of(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? ErrorCode::out_of_memory : ErrorCode::device;
}

std::string version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

// A captured graph, instantiated.
class CudaRecording final : public Recording {
 public:
  CudaRecording(int index, cudaGraphExec_t exec) : index_(index), exec_(exec) {}
  ~CudaRecording() override {
    cudaSetDevice(index_);
    if (cudaGraphExecDestroy(exec_) != cudaSuccess) cudaGetLastError();   // gone with its context
  }
  CudaRecording(const CudaRecording&) = delete;
  CudaRecording& operator=(const CudaRecording&) = delete;
  cudaGraphExec_t exec() const { return exec_; }

 private:
  int index_;
  cudaGraphExec_t exec_;
};

struct DestroyGraph {
  void operator()(cudaGraph_t graph) const {
    if (cudaGraphDestroy(graph) != cudaSuccess) cudaGetLastError();
  }
};
using CapturedGraph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, DestroyGraph>;

struct DestroyEvent {
  void operator()(cudaEvent_t event) const {
    if (cudaEventDestroy(event) != cudaSuccess) cudaGetLastError();
  }
};
using Event = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, DestroyEvent>;

// Captures are thread-local, so CUDA lets several go on at once. They take turns all the same: they are short and rare,
// and nothing is won by more.
std::mutex& capture_lock() {
  static std::mutex lock;
  return lock;
}

// Kernels count along one dimension, and over the values that one output sums, in 32 bits; elements in 64.
void check_extents(const Op& op, const KernelSpec& spec) {
  constexpr std::int64_t most = std::numeric_limits<int>::max();
  for (const std::span<const TensorSpec> side : {spec.in, spec.out})
    for (const TensorSpec& tensor : side)
      for (int i = 0; i < tensor.shape.rank; ++i)
        if (tensor.shape[i] > most)
          throw Error(ErrorCode::unsupported, fmt::format("{}: {} has a dimension of more than {}, which the CUDA kernels do not take",
                                                          name_of(op), to_string(tensor.shape), most));
}

class CudaDevice final : public Device {
 public:
  CudaDevice(int index, Precision precision, const GpuOptions& gpu) : index_(index), gpu_(gpu) {
    settings_.precision = precision;
    use();
    settings_.multiprocessors = attribute(cudaDevAttrMultiProcessorCount);
    compute_capability_ =
        attribute(cudaDevAttrComputeCapabilityMajor) * 10 + attribute(cudaDevAttrComputeCapabilityMinor);
    settings_.shared_per_block = static_cast<std::size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
    settings_.shared_per_multiprocessor =
        static_cast<std::size_t>(attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor));
    if (compute_capability_ < 80)
      throw Error(ErrorCode::unsupported,
                  fmt::format("{}: its compute capability is {}.{}, these kernels need 8.0 or more", name(),
                              compute_capability_ / 10, compute_capability_ % 10));
    check_code();
    check(make_stream(), "creating a stream");
    if (gpu_.algo != Algo::ours)
      algos_ = std::make_unique<CudaAlgos>(*this, settings_, gpu_, model_and_driver(),
                                           [this](const Recording& recording) { return replay_ms(recording); });
  }

  std::string name() const override { return fmt::format("cuda:{}", index_); }
  bool is_host() const override { return false; }
  Precision precision() const override { return settings_.precision; }
  FusionSupport fusions() const override { return {.relu = true, .scale = true, .max_pool_2x2 = true}; }

  Prepared prepare(const Op& op, const KernelSpec& spec) override {
    use();
    check_extents(op, spec);
    Prepared ours =
        std::visit([&](const auto& attributes) { return cuda::prepare(attributes, spec, settings_); }, op);
    return algos_ ? algos_->choose(op, spec, std::move(ours)) : ours;
  }
  std::vector<std::string> libraries() const override {
    return algos_ ? algos_->libraries() : std::vector<std::string>{};
  }

  std::shared_ptr<void> allocate(std::size_t bytes) override {
    use();
    allocations_.fetch_add(1, std::memory_order_relaxed);
    void* data = nullptr;
    const cudaError_t error = cudaMalloc(&data, std::max<std::size_t>(bytes, 1));
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();   // not sticky: the device goes on
      std::size_t free = 0, total = 0;
      if (cudaMemGetInfo(&free, &total) != cudaSuccess) cudaGetLastError();
      throw Error(ErrorCode::out_of_memory, fmt::format("{}: no room for {} bytes: {} of {} are free", name(), bytes, free, total));
    }
    check(error, "allocating memory");
    return std::shared_ptr<void>(data, [index = index_](void* p) {
      cudaSetDevice(index);
      cudaFree(p);
    });
  }

  void upload(void* device, const void* host, std::size_t bytes) override {
    queue_upload(device, host, bytes);
    wait("copying to the device");   // the caller may reuse its memory at once
  }
  void download(void* host, const void* device, std::size_t bytes) override {
    queue_download(host, device, bytes);
    wait("copying from the device");
  }
  std::shared_ptr<void> allocate_host(std::size_t bytes) override {
    use();
    allocations_.fetch_add(1, std::memory_order_relaxed);
    void* data = nullptr;
    const cudaError_t error = cudaHostAlloc(&data, std::max<std::size_t>(bytes, 1), cudaHostAllocDefault);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      throw Error(ErrorCode::out_of_memory, fmt::format("{}: the host has no room for {} page-locked bytes", name(), bytes));
    }
    check(error, "allocating page-locked memory");
    return std::shared_ptr<void>(data, [](void* p) { cudaFreeHost(p); });
  }
  void queue_upload(void* device, const void* host, std::size_t bytes) override {
    use();
    if (bytes == 0) return;   // which a graph need not have a node for
    check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_), "copying to the device");
  }
  void queue_download(void* host, const void* device, std::size_t bytes) override {
    use();
    if (bytes == 0) return;
    check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_), "copying from the device");
  }
  void fill(void* device, int byte, std::size_t bytes) override {
    use();
    check(cudaMemsetAsync(device, byte, bytes, stream_), "filling memory");
  }
  void synchronize() override {
    use();
    wait("running kernels");
  }
  void* stream() override {
    use();
    return stream_;
  }
  bool stages_can_be_timed() const override { return true; }
  // By its first and its last byte.
  bool holds(const void* memory, std::size_t bytes) const override {
    use();
    for (const std::size_t at : {std::size_t{0}, std::max<std::size_t>(bytes, 1) - 1}) {
      cudaPointerAttributes found{};
      check(cudaPointerGetAttributes(&found, static_cast<const std::byte*>(memory) + at), "looking at a pointer");
      const bool known = found.type == cudaMemoryTypeDevice || found.type == cudaMemoryTypeManaged;
      if (!known || found.device != index_) return false;
    }
    return true;
  }

  bool records() const override { return gpu_.graphs; }
  std::unique_ptr<Recording> record(const std::function<void()>& work) override {
    const CapturedGraph graph = capture(work);
    cudaGraphExec_t exec = nullptr;
    check(cudaGraphInstantiate(&exec, graph.get(), 0), "instantiating a graph");
    auto recording = std::make_unique<CudaRecording>(index_, exec);
    check(cudaGraphUpload(exec, stream_), "uploading a graph");   // or the first replay would
    return recording;
  }
  void replay(const Recording& recording) override {
    use();
    check(cudaGraphLaunch(static_cast<const CudaRecording&>(recording).exec(), stream_), "launching a graph");
  }
  DeviceCounts counts() const override { return {allocations_, synchronizations_}; }

 private:
  cudaError_t make_stream() {
    if (gpu_.priority == StreamPriority::normal) return cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking);
    int least = 0, greatest = 0;
    if (const cudaError_t error = cudaDeviceGetStreamPriorityRange(&least, &greatest)) return error;
    return cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest);
  }
  // What measured times depend on, of this device.
  std::string model_and_driver() const {
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, index_), "reading its name");
    int driver = 0;
    check(cudaDriverGetVersion(&driver), "reading the driver's version");
    return fmt::format("{}, compute capability {}.{}, driver {}", properties.name, compute_capability_ / 10,
                       compute_capability_ % 10, version_text(driver));
  }
  Event make_event() const {
    cudaEvent_t event = nullptr;
    check(cudaEventCreate(&event), "creating an event");
    return Event(event);
  }
  double replay_ms(const Recording& recording) {
    use();
    const Event start = make_event(), end = make_event();
    check(cudaEventRecord(start.get(), stream_), "recording an event");
    replay(recording);
    check(cudaEventRecord(end.get(), stream_), "recording an event");
    wait("running kernels");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, start.get(), end.get()), "reading the time between events");
    return ms;
  }
  void wait(const char* doing) {
    synchronizations_.fetch_add(1, std::memory_order_relaxed);
    check(cudaStreamSynchronize(stream_), doing);
  }
  // Everything that `work` queues, in place of running it. Whatever happens the capture is ended before the stream is
  // asked for anything else, since asking is an error while it lasts.
  CapturedGraph capture(const std::function<void()>& work) {
    use();
    const std::lock_guard lock(capture_lock());
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "beginning a capture");
    capturing_ = true;
    std::exception_ptr failure;
    try {
      work();
    } catch (...) {
      failure = std::current_exception();
    }
    capturing_ = false;
    cudaGraph_t captured = nullptr;
    const cudaError_t ended = cudaStreamEndCapture(stream_, &captured);
    CapturedGraph graph(captured);
    if (failure) {
      cudaGetLastError();
      note_if_dead();
      std::rethrow_exception(failure);   // the first thing that went wrong: ending only tells that something did
    }
    check(ended, "ending a capture");
    if (!graph) throw Error(ErrorCode::device, fmt::format("{}: ending a capture: there is no graph", name()));
    return graph;
  }
  // Makes this device the calling thread's, or says that it died: a sticky error ends the device's context for the
  // whole process.
  void use() const {
    if (dead_) throw Error(ErrorCode::device, fmt::format("{}: dead since an earlier error; restart the process to use it", name()));
    check(cudaSetDevice(index_), "selecting the device");
  }
  void check(cudaError_t error, const char* doing) const {
    if (error == cudaSuccess) return;
    cudaGetLastError();
    if (!capturing_) note_if_dead();
    throw Error(code_of(error), fmt::format("{}: {}: {}", name(), doing, cudaGetErrorString(error)));
  }
  // An error that is still there after being cleared: the context is corrupt. Without a stream there is no device to
  // go on.
  void note_if_dead() const {
    const cudaError_t after = stream_ ? cudaStreamQuery(stream_) : cudaSuccess;
    cudaGetLastError();
    if (after != cudaSuccess && after != cudaErrorNotReady) dead_ = true;
  }
  // A GPU that this program was not compiled for would only fail at the first kernel.
  void check_code() const {
    cudaFuncAttributes attributes{};
    const cudaError_t error = cudaFuncGetAttributes(&attributes, cuda::clear_flag_function());
    if (error != cudaErrorNoKernelImageForDevice && error != cudaErrorInvalidDeviceFunction)
      return check(error, "loading its kernels");
    cudaGetLastError();
    throw Error(ErrorCode::unsupported,
                fmt::format("{}: this build has no code for its compute capability {}.{}, only for {}", name(),
                            compute_capability_ / 10, compute_capability_ % 10, FRCNN_CUDA_COMPILED_FOR));
  }
  int attribute(cudaDeviceAttr which) const {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, which, index_), "reading its attributes");
    return value;
  }

  int index_;
  GpuOptions gpu_;
  cudaStream_t stream_ = nullptr;
  // Also when making the device fails later than making its stream.
  struct StreamEnd {
    cudaStream_t& stream;
    ~StreamEnd() {
      if (stream) cudaStreamDestroy(stream);
    }
  } stream_end_{stream_};
  bool capturing_ = false;
  int compute_capability_ = 0;                 // major * 10 + minor
  cuda::Settings settings_;
  mutable std::atomic<bool> dead_ = false;
  std::atomic<std::int64_t> allocations_ = 0, synchronizations_ = 0;
  std::unique_ptr<CudaAlgos> algos_;           // null: all kernels are ours
};

// The CUDA version that the driver serves; 0 if there is none.
int driver_version() {
  int version = 0;
  if (cudaDriverGetVersion(&version) != cudaSuccess) version = 0;
  cudaGetLastError();
  return version;
}

// What keeps the runtime from finding a device, from the error that it gave.
std::string why_none(cudaError_t error) {
  const int driver = driver_version();
  if (error == cudaErrorNoDevice) return "the driver finds no CUDA device on this machine";
  if (error == cudaErrorInsufficientDriver && driver == 0) return "this machine has no NVIDIA driver";
  if (error == cudaErrorInsufficientDriver)
    return fmt::format("the driver is too old: it serves CUDA {}, this build needs CUDA {} or newer",
                       version_text(driver), CUDART_VERSION / 1000);
  return fmt::format("no usable driver: {}", cudaGetErrorString(error));
}

// How many devices there are, and why none.
struct Count {
  int devices = 0;   // left untouched by a failing call
  std::string why;
  ErrorCode code = ErrorCode::unsupported;
};
Count count_devices() {
  Count count;
  const cudaError_t error = cudaGetDeviceCount(&count.devices);
  cudaGetLastError();
  if (error == cudaSuccess) return count;
  return {0, why_none(error), error == cudaErrorMemoryAllocation ? ErrorCode::out_of_memory : ErrorCode::unsupported};
}

}  // namespace

std::shared_ptr<Device> make_cuda_device(int index, Precision precision, const GpuOptions& gpu) {
  const auto [count, why, code] = count_devices();
  if (!why.empty()) throw Error(code, fmt::format("cuda:{}: {}", index, why));
  if (index < 0 || index >= count)
    throw Error(ErrorCode::unsupported, fmt::format("cuda:{}: this machine has {} CUDA device{}", index, count, count == 1 ? "" : "s"));
  return std::make_shared<CudaDevice>(index, precision, gpu);
}

CudaFindings find_cuda() {
  CudaFindings found;
  found.runtime = version_text(CUDART_VERSION);
  if (const int driver = driver_version()) found.driver = version_text(driver);
  const Count count = count_devices();
  found.problem = count.why;
  for (int i = 0; i < count.devices; ++i) {
    cudaDeviceProp properties{};
    if (const cudaError_t error = cudaGetDeviceProperties(&properties, i); error != cudaSuccess) {
      cudaGetLastError();
      found.devices.push_back(fmt::format("not usable: {}", cudaGetErrorString(error)));
      continue;
    }
    found.devices.push_back(fmt::format("{}, compute capability {}.{}, {} multiprocessors, {:.1f} GiB", properties.name, properties.major,
                                        properties.minor, properties.multiProcessorCount,
                                        static_cast<double>(properties.totalGlobalMem) / (1 << 30)));
  }
  return found;
}

}  // namespace frcnn
