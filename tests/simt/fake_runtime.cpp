#include "tests/simt/fake_runtime.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <vector>

#include "frcnn/error.h"

namespace {

using frcnn::simt::FakeMachine;

struct Block {
  std::size_t bytes;
  int device;  // -1: of the host
};

// A copy that is on its way. `content` is the source as it was when the copy was queued: the emulator runs
// kernels at once, so in the stream's order everything before has happened.
struct Copy {
  void* to;
  const void* from;
  std::vector<unsigned char> content;
  bool to_host;
};

struct Stream final : FrcnnSimtStream {
  explicit Stream(int d) : device(d) {}
  void before_launch(const void* kernel) override;
  int device;
  std::vector<Copy> copies;
};

struct State {
  FakeMachine::Properties properties;
  std::map<char*, Block> blocks;  // by first byte
  std::set<Stream*> streams;
  std::map<int, cudaError_t> dead;  // by device
  std::map<std::string, int> calls;
  std::size_t in_use = 0;
  int fail_at = 0;  // calls left until the wanted error; 0: none wanted
  cudaError_t fail_with = cudaSuccess;
  bool fail_sticky = false, has_failed = false;
  std::string fail_call, violation;
  std::function<void()> on_launch;
};

std::mutex mutex;
std::unique_ptr<State> machine;
thread_local int current_device = 0;
thread_local cudaError_t last_error = cudaSuccess;

cudaError_t result(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

// The front of every call that can fail, under the lock: counts it and says what it must fail with, if
// anything.
cudaError_t enter(const std::string& call, int device) {
  if (!machine) throw std::logic_error(call + " without a FakeMachine");
  State& m = *machine;
  ++m.calls[call];
  if (m.fail_at > 0 && (m.fail_call.empty() || m.fail_call == call) && --m.fail_at == 0) {
    m.has_failed = true;
    if (m.fail_sticky) m.dead[device] = m.fail_with;
    return m.fail_with;
  }
  if (call == "cudaSetDevice" || call == "cudaGetDeviceCount")
    return cudaSuccess;  // they only look at the list
  const auto dead = m.dead.find(device);
  return dead == m.dead.end() ? cudaSuccess : dead->second;
}

void violate(const std::string& what) {
  if (machine->violation.empty()) machine->violation = what;
}

// The allocation that holds all of these bytes, or null.
const Block* block_of(const void* memory, std::size_t bytes) {
  auto* const at = static_cast<char*>(const_cast<void*>(memory));
  auto found = machine->blocks.upper_bound(at);
  if (found == machine->blocks.begin()) return nullptr;
  --found;
  return at + bytes <= found->first + found->second.bytes ? &found->second : nullptr;
}

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

void Stream::before_launch(const void* kernel) {
  std::function<void()> callback;
  cudaError_t error;
  {
    const std::lock_guard lock(mutex);
    error = result(enter("launch", device));
    callback = machine->on_launch;
  }
  if (error != cudaSuccess) {
    last_error = cudaSuccess;
    const bool full = error == cudaErrorMemoryAllocation;
    throw frcnn::Error(
        full ? frcnn::ErrorCode::out_of_memory : frcnn::ErrorCode::device,
        "kernel " + frcnn::simt::kernel_name(kernel) + ": cudaLaunchKernelExC: " + cudaGetErrorString(error));
  }
  if (callback) callback();
}

}  // namespace

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
  *properties = {"Emulated GPU", machine->properties.memory_bytes, machine->properties.compute_capability / 10,
                 machine->properties.compute_capability % 10, machine->properties.multiprocessors};
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
  if (const cudaError_t error = enter("cudaMalloc", current_device)) return result(error);
  if (bytes > free_bytes(current_device)) return result(cudaErrorMemoryAllocation);
  return result(allocate(memory, bytes, current_device));
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  const std::lock_guard lock(mutex);
  if (const cudaError_t error = enter("cudaMemGetInfo", current_device)) return result(error);
  *free = free_bytes(current_device);
  *total = machine->properties.memory_bytes;
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  const std::lock_guard lock(mutex);
  const cudaError_t error = enter("cudaFree", current_device), freed = release(memory, true);
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
  if (const cudaError_t error = enter("cudaHostAlloc", current_device)) return result(error);
  return result(allocate(memory, bytes, -1));
}

cudaError_t cudaFreeHost(void* memory) {
  const std::lock_guard lock(mutex);
  const cudaError_t error = enter("cudaFreeHost", current_device), freed = release(memory, false);
  return result(error != cudaSuccess ? error : freed);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  auto& on = *static_cast<Stream*>(stream);
  if (const cudaError_t error = enter("cudaMemcpyAsync", on.device)) return result(error);
  const bool to_host = kind == cudaMemcpyDeviceToHost;
  const Block* const there = block_of(to_host ? from : to, bytes);
  const Block* const here = block_of(to_host ? to : from, bytes);
  if (!there || there->device != on.device || (here && here->device >= 0)) {
    violate("a copy outside of the device's memory");
    return result(cudaErrorInvalidValue);
  }
  if (!to_host) std::memcpy(to, from, bytes);
  if (here) {
    const auto* const bytes_from = static_cast<const unsigned char*>(from);
    on.copies.push_back({to, from, {bytes_from, bytes_from + bytes}, to_host});
    if (to_host) std::memset(to, 0xFF, bytes);
  } else if (to_host) {
    std::memcpy(to, from, bytes);  // into ordinary memory: complete when the call returns
  }
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* memory, int byte, std::size_t bytes, cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  const int device = static_cast<Stream*>(stream)->device;
  if (const cudaError_t error = enter("cudaMemsetAsync", device)) return result(error);
  const Block* const block = block_of(memory, bytes);
  if (!block || block->device != device) {
    violate("a fill outside of the device's memory");
    return result(cudaErrorInvalidValue);
  }
  std::memset(memory, byte, bytes);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const std::lock_guard lock(mutex);
  if (const cudaError_t error = enter("cudaStreamCreateWithFlags", current_device)) return result(error);
  *stream = *machine->streams.insert(new Stream(current_device)).first;
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  auto* const which = static_cast<Stream*>(stream);
  const cudaError_t error = enter("cudaStreamDestroy", which->device);
  finish_copies(*which);
  machine->streams.erase(which);
  delete which;
  return result(error);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  auto& which = *static_cast<Stream*>(stream);
  const cudaError_t error = enter("cudaStreamSynchronize", which.device);
  finish_copies(which);
  return result(error);
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  if (!machine) throw std::logic_error("cudaStreamQuery without a FakeMachine");
  const int device = stream ? static_cast<Stream*>(stream)->device : current_device;
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
}

void FakeMachine::fail_nothing() { fail(0, cudaSuccess); }

bool FakeMachine::failed() const {
  const std::lock_guard lock(mutex);
  return machine->has_failed;
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
}

std::size_t FakeMachine::bytes_in_use() const {
  const std::lock_guard lock(mutex);
  return machine->in_use;
}

std::size_t FakeMachine::allocations_alive() const {
  const std::lock_guard lock(mutex);
  return machine->blocks.size() + machine->streams.size();
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
