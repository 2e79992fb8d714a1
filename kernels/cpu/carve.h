// Cutting a workspace into arrays.
#pragma once

#include <cstddef>
#include <cstdint>

namespace frcnn::cpu {

// The next multiple of what a workspace is aligned to.
constexpr std::size_t padded(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

// Hands out arrays one after another, each at a multiple of 64 bytes. Started at null it only counts, so the
// code that says how much workspace a kernel needs is the code that later cuts it.
class Carver {
 public:
  explicit Carver(void* base = nullptr) : base_(static_cast<std::byte*>(base)) {}

  template <typename T>
  T* take(std::int64_t count) {
    T* array = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
    used_ += padded(static_cast<std::size_t>(count) * sizeof(T));
    return array;
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* base_;
  std::size_t used_ = 0;
};

}  // namespace frcnn::cpu
