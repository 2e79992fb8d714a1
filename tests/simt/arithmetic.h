// Functions of one thread, each as a kernel over arrays: conversions, arithmetic with a stated rounding,
// approximations, bit tricks.
#pragma once

#include <cstdint>
#include <span>

namespace frcnn::simt_test {

struct Function {
  enum class Type : std::uint8_t { f32, f64, u32, u16 };  // u16: the bits of a half or bfloat16
  // Which inputs it is asked about: all bit patterns, numbers in [-10, 10], or in [2, 1e6].
  enum class Domain : std::uint8_t { all, moderate, large };
  const char* name;
  Type in, out;
  Domain domain;
  int ulps;  // how far a GPU may be from the emulator's result (CUDA Math API, "Accuracy"); 0: the same bits
  // out[i] = f(a[i], b[i], c[i]); every pointer is visible to the device.
  void (*run)(int n, const void* a, const void* b, const void* c, void* out);
};

std::span<const Function> functions();

}  // namespace frcnn::simt_test
