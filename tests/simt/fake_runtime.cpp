#include "tests/simt/fake_state.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "frcnn/error.h"

namespace frcnn::simt::fake {

cudaError_t result(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

void violate(const std::string& what) {
  if (machine->violation.empty()) machine->violation = what;
}

cudaError_t enter(const std::string& call, int device) {
  if (!machine) throw std::logic_error(call + " without a FakeMachine");
  State& m = *machine;
  ++m.calls[call];
  if (m.fail_at > 0 && (m.fail_call.empty() || m.fail_call == call) && --m.fail_at == 0) {
    m.has_failed = true;
    m.failed_call = call;
    if (m.fail_sticky) m.dead[device] = m.fail_with;
    return m.fail_with;
  }
  if (call == "cudaSetDevice" || call == "cudaGetDeviceCount")
    return cudaSuccess;  // they only look at the list
  const auto dead = m.dead.find(device);
  return dead == m.dead.end() ? cudaSuccess : dead->second;
}

cudaError_t enter_stream(const std::string& call, Stream& stream) {
  cudaError_t error = enter(call, stream.device);
  if (!stream.capture) return error;
  if (!error && stream.capture->invalid) error = cudaErrorStreamCaptureInvalidated;
  if (!error && stream.capture->thread != std::this_thread::get_id()) {
    violate(call + " on a stream that another thread captures");
    error = cudaErrorStreamCaptureWrongThread;
  }
  if (error) stream.capture->invalid = true;
  return error;
}

cudaError_t enter_outside_capture(const std::string& call, int device) {
  const cudaError_t error = enter(call, device);
  if (!FrcnnSimtStream::capturing) return error;
  violate(call + " during a capture");
  static_cast<Stream*>(FrcnnSimtStream::capturing)->capture->invalid = true;
  return error ? error : cudaErrorStreamCaptureUnsupported;
}

const Block* block_of(const void* memory, std::size_t bytes) {
  auto* const at = static_cast<char*>(const_cast<void*>(memory));
  auto found = machine->blocks.upper_bound(at);
  if (found == machine->blocks.begin()) return nullptr;
  --found;
  return at + bytes <= found->first + found->second.bytes ? &found->second : nullptr;
}

namespace {

std::size_t free_bytes(int device) {
  std::size_t taken = 0;
  for (const auto& [data, block] : machine->blocks) taken += block.device == device ? block.bytes : 0;
  return machine->properties.memory_bytes - taken;
}

cudaError_t allocate(void** memory, std::size_t bytes, int device) {
  void* data = nullptr;
  if (posix_memalign(&data, 256, bytes) != 0) return cudaErrorMemoryAllocation;
  std::memset(data, 0xFF, bytes);
  machine->blocks[static_cast<char*>(data)] = {bytes, device};
  if (device >= 0) machine->in_use += bytes;
  *memory = data;
  return cudaSuccess;
}

void finish_copies(Stream& stream) {
  for (const Copy& copy : stream.copies) {
    if (copy.to_host) {
      std::memcpy(copy.to, copy.content.data(), copy.content.size());
    } else if (std::memcmp(copy.from, copy.content.data(), copy.content.size()) != 0) {
      violate("the source of a queued copy to the device was written to before the stream was synchronised");
    }
  }
  stream.copies.clear();
}

cudaError_t release(void* memory, bool of_device) {
  if (!memory) return cudaSuccess;
  const auto found = machine->blocks.find(static_cast<char*>(memory));
  if (found == machine->blocks.end() || (found->second.device >= 0) != of_device) {
    violate("freed what was not allocated so");
    return cudaErrorInvalidValue;
  }
  for (Stream* stream : machine->streams) finish_copies(*stream);  // freeing waits for what is under way
  if (of_device) machine->in_use -= found->second.bytes;
  std::free(memory);
  machine->blocks.erase(found);
  return cudaSuccess;
}

}  // namespace

cudaError_t copy(Stream& stream, const FrcnnFakeGraph::Node& node) {
  const bool to_host = node.kind == cudaMemcpyDeviceToHost;
  const Block* const there = block_of(to_host ? node.from : node.to, node.bytes);
  const Block* const here = block_of(to_host ? node.to : node.from, node.bytes);
  if (!there || there->device != stream.device || (here && here->device >= 0)) {
    violate("a copy outside of the device's memory");
    return cudaErrorInvalidValue;
  }
  if (stream.capture) {
    if (!here) {
      violate("a captured copy of host memory that is not page-locked");
      stream.capture->invalid = true;
      return cudaErrorStreamCaptureUnsupported;
    }
    stream.capture->graph.nodes.push_back(node);
    return cudaSuccess;
  }
  if (!to_host) std::memcpy(node.to, node.from, node.bytes);
  if (here) {
    const auto* const bytes_from = static_cast<const unsigned char*>(node.from);
    stream.copies.push_back({node.to, node.from, {bytes_from, bytes_from + node.bytes}, to_host});
    if (to_host) std::memset(node.to, 0xFF, node.bytes);
  } else if (to_host) {
    std::memcpy(node.to, node.from, node.bytes);  // into ordinary memory: complete when the call returns
  }
  return cudaSuccess;
}

cudaError_t fill(Stream& stream, const FrcnnFakeGraph::Node& node) {
  const Block* const block = block_of(node.to, node.bytes);
  if (!block || block->device != stream.device) {
    violate("a fill outside of the device's memory");
    return cudaErrorInvalidValue;
  }
  if (stream.capture)
    stream.capture->graph.nodes.push_back(node);
  else
    std::memset(node.to, node.byte, node.bytes);
  return cudaSuccess;
}

namespace {

[[noreturn]] void throw_launch_error(cudaError_t error, const void* kernel) {
  last_error = cudaSuccess;
  const bool full = error == cudaErrorMemoryAllocation;
  throw Error(full ? ErrorCode::out_of_memory : ErrorCode::device,
              "kernel " + kernel_name(kernel) + ": cudaLaunchKernelExC: " + cudaGetErrorString(error));
}

}  // namespace

Stream::~Stream() {
  if (capturing == this) capturing = nullptr;
}

void Stream::launch(const void* kernel, const std::function<void()>& start) {
  std::function<void()> callback;
  cudaError_t error;
  bool captured = false;
  {
    const std::lock_guard lock(mutex);
    error = result(enter_stream("launch", *this));
    captured = capture && !error;
    if (captured) {
      FrcnnFakeGraph::Node node;
      node.start = start;
      node.kernel = kernel;
      capture->graph.nodes.push_back(std::move(node));
    }
    callback = machine->on_launch;
    if (!error && !captured) take_time(kernel);
  }
  if (error != cudaSuccess) throw_launch_error(error, kernel);
  if (callback) callback();
  if (!captured) start();
}

// It would run now and not when the graph does.
void Stream::refuse_default_stream(const void* kernel) {
  {
    const std::lock_guard lock(mutex);
    violate("a kernel on the default stream during a capture");
    if (capture) capture->invalid = true;
  }
  throw_launch_error(cudaErrorStreamCaptureImplicit, kernel);
}

}  // namespace frcnn::simt::fake

using namespace frcnn::simt::fake;

cudaError_t cudaDriverGetVersion(int* version) {
  const std::lock_guard lock(mutex);
  *version = machine->properties.driver;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  const std::lock_guard lock(mutex);
  if (const cudaError_t error = enter("cudaGetDeviceCount", -1)) return result(error);
  if (machine->properties.driver < CUDART_VERSION) return result(cudaErrorInsufficientDriver);
  if (machine->properties.devices == 0) return result(cudaErrorNoDevice);
  *count = machine->properties.devices;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  const std::lock_guard lock(mutex);
  if (const cudaError_t error = enter("cudaSetDevice", device)) return result(error);
  if (device < 0 || device >= machine->properties.devices) return result(cudaErrorInvalidDevice);
  current_device = device;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  const std::lock_guard lock(mutex);
  if (const cudaError_t error = enter("cudaDeviceGetAttribute", device)) return result(error);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = machine->properties.multiprocessors;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = machine->properties.compute_capability / 10;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = machine->properties.compute_capability % 10;
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = static_cast<int>(frcnn::simt::settings().shared_limit) + 1024;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(frcnn::simt::settings().shared_limit);
      break;
  }
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  const std::lock_guard lock(mutex);
  if (const cudaError_t error = enter("cudaGetDeviceProperties", device)) return result(error);
  if (device < 0 || device >= machine->properties.devices) return result(cudaErrorInvalidDevice);
  *properties = {"Emulated GPU", machine->properties.memory_bytes,
                 machine->properties.compute_capability / 10, machine->properties.compute_capability % 10,
                 machine->properties.multiprocessors};
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  const std::lock_guard lock(mutex);
  if (const cudaError_t error = enter("cudaFuncGetAttributes", current_device)) return result(error);
  if (!machine->properties.has_code) return result(cudaErrorNoKernelImageForDevice);
  *attributes = {machine->properties.compute_capability};
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  const std::lock_guard lock(mutex);
  if (const cudaError_t error = enter_outside_capture("cudaMalloc", current_device)) return result(error);
  if (bytes > free_bytes(current_device)) return result(cudaErrorMemoryAllocation);
  return result(allocate(memory, bytes, current_device));
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  const std::lock_guard lock(mutex);
  if (const cudaError_t error = enter_outside_capture("cudaMemGetInfo", current_device)) return result(error);
  *free = free_bytes(current_device);
  *total = machine->properties.memory_bytes;
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  const std::lock_guard lock(mutex);
  const cudaError_t error = enter_outside_capture("cudaFree", current_device), freed = release(memory, true);
  return result(error != cudaSuccess ? error : freed);  // what fails here is gone with the context
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* memory) {
  const std::lock_guard lock(mutex);
  if (const cudaError_t error = enter("cudaPointerGetAttributes", current_device)) return result(error);
  const Block* const block = block_of(memory, 1);
  *attributes = {cudaMemoryTypeUnregistered, current_device};
  if (block && block->device < 0) attributes->type = cudaMemoryTypeHost;
  if (block && block->device >= 0) *attributes = {cudaMemoryTypeDevice, block->device};
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned) {
  const std::lock_guard lock(mutex);
  if (const cudaError_t error = enter_outside_capture("cudaHostAlloc", current_device)) return result(error);
  return result(allocate(memory, bytes, -1));
}

cudaError_t cudaFreeHost(void* memory) {
  const std::lock_guard lock(mutex);
  const cudaError_t error = enter_outside_capture("cudaFreeHost", current_device),
                    freed = release(memory, false);
  return result(error != cudaSuccess ? error : freed);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  auto& on = *static_cast<Stream*>(stream);
  if (const cudaError_t error = enter_stream("cudaMemcpyAsync", on)) return result(error);
  return result(copy(on, {nullptr, to, from, bytes, kind, 0}));
}

cudaError_t cudaMemsetAsync(void* memory, int byte, std::size_t bytes, cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  auto& on = *static_cast<Stream*>(stream);
  if (const cudaError_t error = enter_stream("cudaMemsetAsync", on)) return result(error);
  return result(fill(on, {nullptr, memory, nullptr, bytes, cudaMemcpyHostToDevice, byte}));
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const std::lock_guard lock(mutex);
  if (const cudaError_t error = enter_outside_capture("cudaStreamCreateWithFlags", current_device))
    return result(error);
  *stream = *machine->streams.insert(new Stream(current_device, 0)).first;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  const std::lock_guard lock(mutex);
  if (const cudaError_t error = enter("cudaDeviceGetStreamPriorityRange", current_device))
    return result(error);
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int priority) {
  const std::lock_guard lock(mutex);
  if (const cudaError_t error = enter_outside_capture("cudaStreamCreateWithPriority", current_device))
    return result(error);
  *stream = *machine->streams.insert(new Stream(current_device, priority)).first;
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  auto* const which = static_cast<Stream*>(stream);
  const cudaError_t error = enter_outside_capture("cudaStreamDestroy", which->device);
  finish_copies(*which);
  machine->streams.erase(which);
  delete which;
  return result(error);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  auto& which = *static_cast<Stream*>(stream);
  const cudaError_t error = enter_outside_capture("cudaStreamSynchronize", which.device);
  finish_copies(which);
  return result(error);
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  if (!machine) throw std::logic_error("cudaStreamQuery without a FakeMachine");
  const int device = stream ? static_cast<Stream*>(stream)->device : current_device;
  if (stream && static_cast<Stream*>(stream)->capture) {
    violate("cudaStreamQuery on a stream that is being captured");
    static_cast<Stream*>(stream)->capture->invalid = true;
    return result(cudaErrorStreamCaptureUnsupported);
  }
  const auto dead = machine->dead.find(device);
  return result(dead == machine->dead.end() ? cudaSuccess : dead->second);
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInsufficientDriver:
      return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorNoKernelImageForDevice:
      return "no kernel image is available for execution on the device";
    case cudaErrorInvalidDeviceFunction:
      return "invalid device function";
    case cudaErrorNotReady:
      return "device not ready";
    case cudaErrorIllegalAddress:
      return "an illegal memory access was encountered";
    case cudaErrorLaunchFailure:
      return "unspecified launch failure";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
      return "operation failed due to a previous error during capture";
    case cudaErrorStreamCaptureImplicit:
      return "operation would make the legacy stream depend on a capturing blocking stream";
    case cudaErrorStreamCaptureWrongThread:
      return "attempt to terminate a thread-local capture sequence from another thread";
  }
  return "unknown error";
}

namespace frcnn::simt {

FakeMachine::FakeMachine(const Properties& properties) {
  const std::lock_guard lock(mutex);
  if (machine) throw std::logic_error("there is a FakeMachine already");
  machine = std::make_unique<State>();
  machine->properties = properties;
  current_device = 0;
  last_error = cudaSuccess;
}

FakeMachine::~FakeMachine() {
  const std::lock_guard lock(mutex);
  machine.reset();  // what is still allocated is a leak, which LeakSanitizer reports
}

void FakeMachine::fail(int nth, cudaError_t error, bool sticky, const std::string& call) {
  const std::lock_guard lock(mutex);
  machine->fail_at = nth;
  machine->fail_with = error;
  machine->fail_sticky = sticky;
  machine->fail_call = call;
  machine->has_failed = false;
  machine->failed_call.clear();
}

void FakeMachine::fail_nothing() { fail(0, cudaSuccess); }

bool FakeMachine::failed() const {
  const std::lock_guard lock(mutex);
  return machine->has_failed;
}

std::string FakeMachine::failed_call() const {
  const std::lock_guard lock(mutex);
  return machine->failed_call;
}

std::map<std::string, int> FakeMachine::calls() const {
  const std::lock_guard lock(mutex);
  return machine->calls;
}

int FakeMachine::count(const std::string& call) const {
  const auto all = calls();
  const auto found = all.find(call);
  return found == all.end() ? 0 : found->second;
}

int FakeMachine::count_all() const {
  int sum = 0;
  for (const auto& [call, count] : calls()) sum += count;
  return sum;
}

void FakeMachine::reset_counts() {
  const std::lock_guard lock(mutex);
  machine->calls.clear();
  machine->replayed_kernels = 0;
}

std::size_t FakeMachine::bytes_in_use() const {
  const std::lock_guard lock(mutex);
  return machine->in_use;
}

std::size_t FakeMachine::allocations_alive() const {
  const std::lock_guard lock(mutex);
  return machine->blocks.size() + machine->streams.size() + machine->graphs.size() +
         machine->executables.size() + machine->events.size();
}

std::size_t FakeMachine::graphs_alive() const {
  const std::lock_guard lock(mutex);
  return machine->executables.size();
}

int FakeMachine::replayed_kernels() const {
  const std::lock_guard lock(mutex);
  return machine->replayed_kernels;
}

std::multiset<int> FakeMachine::stream_priorities() const {
  const std::lock_guard lock(mutex);
  std::multiset<int> priorities;
  for (const Stream* stream : machine->streams) priorities.insert(stream->priority);
  return priorities;
}

std::string FakeMachine::violation() const {
  const std::lock_guard lock(mutex);
  return machine->violation;
}

void FakeMachine::on_launch(std::function<void()> callback) {
  const std::lock_guard lock(mutex);
  machine->on_launch = std::move(callback);
}

}  // namespace frcnn::simt
