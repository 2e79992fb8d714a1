// Memory for a kernel under test, between guard zones. On the host, and on a GPU when FRCNN_GPU is defined
// (with FRCNN_SIMT beside it: on the fake CUDA runtime's device).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "frcnn/error.h"

#if defined(FRCNN_GPU)
#include "cuda/device.h"
#endif

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FRCNN_TEST_ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define FRCNN_TEST_ASAN 1
#endif
#ifdef FRCNN_TEST_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace frcnn::test {

// Whose memory; the emulated device's is the host's.
enum class Place : std::uint8_t { host, device };

#if defined(FRCNN_GPU)

// compute-sanitizer sees a store past an allocation to the byte, and a load of what nobody wrote: with
// FRCNN_EXACT_MEMORY set, device memory is allocated as long as asked for, without zones and not filled.
inline bool exact_memory() {
  static const bool exact = std::getenv("FRCNN_EXACT_MEMORY") != nullptr;
  return exact;
}

// CUDA device 0: a stream on which the tests do everything, and its memory. Small tests take and return
// memory thousands of times, so it is kept.
class Gpu {
 public:
  static Gpu& only() {
    static Gpu gpu;
    return gpu;
  }
  static void check(cudaError_t status, const char* call) {
    if (status == cudaSuccess) return;
    cudaGetLastError();
    throw Error(ErrorCode::device, std::string(call) + ": " + cudaGetErrorString(status));
  }

  cudaStream_t stream() {
    if (!stream_)
      check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    return stream_;
  }
  void finish() { check(cudaStreamSynchronize(stream()), "cudaStreamSynchronize"); }
  void copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
    if (bytes == 0) return;
    check(cudaMemcpyAsync(to, from, bytes, kind, stream()), "cudaMemcpyAsync");
    finish();
  }
  void fill(void* memory, int byte, std::size_t bytes) {
    if (bytes > 0) check(cudaMemsetAsync(memory, byte, bytes, stream()), "cudaMemsetAsync");
  }

  void* take(std::size_t bytes) {
    std::vector<void*>& free = free_[rounded(bytes)];
    void* memory = nullptr;
    if (free.empty()) {
      check(cudaMalloc(&memory, rounded(bytes)), "cudaMalloc");
    } else {
      memory = free.back();
      free.pop_back();
    }
    return memory;
  }
  void give_back(void* memory, std::size_t bytes) {
    if (exact_memory())
      cudaFree(memory);
    else
      free_[rounded(bytes)].push_back(memory);
  }
  // Before the device goes.
  void clear() {
    for (auto& [bytes, list] : free_)
      for (void* memory : list) cudaFree(memory);
    free_.clear();
    if (stream_) cudaStreamDestroy(stream_);
    stream_ = nullptr;
  }

 private:
  static std::size_t rounded(std::size_t bytes) {
    if (exact_memory()) return bytes > 0 ? bytes : 1;
    std::size_t room = 4096;
    while (room < bytes) room *= 2;
    return room;
  }
  cudaStream_t stream_ = nullptr;
  std::map<std::size_t, std::vector<void*>> free_;  // by size
};

#endif

// `bytes` at a 256-byte boundary with guards on both sides, all filled. Under ASan the guards are poisoned,
// which also catches reads; generated machine code is not instrumented, so the pattern is checked too.
class GuardedBuffer {
 public:
  GuardedBuffer(std::size_t bytes, unsigned char fill, Place place = Place::host)
      : bytes_(bytes), on_gpu_(is_gpu(place)) {
#if defined(FRCNN_GPU)
    if (on_gpu_) {
      zone_ = exact_memory() ? 0 : zone;
      device_ = static_cast<unsigned char*>(Gpu::only().take(bytes + 2 * zone_));
      data_ = device_ + zone_;
      if (exact_memory()) return;
      Gpu::only().fill(device_, pattern, bytes + 2 * zone_);
      Gpu::only().fill(data_, fill, bytes);
      return;
    }
#endif
    storage_.reset(new unsigned char[bytes + 2 * zone + 256]);
    const auto address = reinterpret_cast<std::uintptr_t>(storage_.get()) + zone;
    data_ = storage_.get() + zone + (256 - address % 256) % 256;
    std::memset(data_ - zone, pattern, zone);
    std::memset(data_, fill, bytes);
    std::memset(data_ + bytes, pattern, zone);
    poison(true);
  }
  ~GuardedBuffer() {
#if defined(FRCNN_GPU)
    if (on_gpu_) Gpu::only().give_back(device_, bytes_ + 2 * zone_);
#endif
    if (!on_gpu_) poison(false);
  }
  GuardedBuffer(const GuardedBuffer&) = delete;
  GuardedBuffer& operator=(const GuardedBuffer&) = delete;

  void* data() const { return data_; }
  std::size_t size() const { return bytes_; }
  // All of it.
  void write(const void* host) {
    if (bytes_ == 0) return;
#if defined(FRCNN_GPU)
    if (on_gpu_) return Gpu::only().copy(data_, host, bytes_, cudaMemcpyHostToDevice);
#endif
    std::memcpy(data_, host, bytes_);
  }
  void read(void* host) const { fetch(host, data_, bytes_); }
  bool intact() {
    poison(false);
    std::vector<unsigned char> guards(2 * zone_);
    fetch(guards.data(), data_ - zone_, zone_);
    fetch(guards.data() + zone_, data_ + bytes_, zone_);
    bool same = true;
    for (const unsigned char byte : guards) same = same && byte == pattern;
    poison(true);
    return same;
  }

 private:
  static constexpr std::size_t zone = 4096;
  static constexpr unsigned char pattern = 0xA5;
  static bool is_gpu([[maybe_unused]] Place place) {
#if defined(FRCNN_GPU)
    return place == Place::device;
#else
    return false;
#endif
  }
  void fetch(void* to, const void* from, std::size_t bytes) const {
    if (bytes == 0) return;
#if defined(FRCNN_GPU)
    if (on_gpu_) return Gpu::only().copy(to, from, bytes, cudaMemcpyDeviceToHost);
#endif
    std::memcpy(to, from, bytes);
  }
  void poison([[maybe_unused]] bool on) {
#ifdef FRCNN_TEST_ASAN
    if (on_gpu_) return;
    if (on) {
      __asan_poison_memory_region(data_ - zone, zone);
      __asan_poison_memory_region(data_ + bytes_, zone);
    } else {
      __asan_unpoison_memory_region(data_ - zone, zone + bytes_ + zone);
    }
#endif
  }
  std::size_t bytes_, zone_ = zone;
  bool on_gpu_;
  std::unique_ptr<unsigned char[]> storage_;
  [[maybe_unused]] unsigned char* device_ = nullptr;  // on a GPU
  unsigned char* data_ = nullptr;
};

}  // namespace frcnn::test
