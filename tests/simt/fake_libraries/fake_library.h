// What the fake cuDNN and cuBLASLt share with the tests that open them: libraries that are found as the real ones
// are, and compute plainly on the fake runtime's memory, in the order of its streams. Arithmetic is fp32 whatever
// was asked for, sums in double.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tests/simt/emulator.h"

namespace frcnn::simt_test {

// Each library exports `frcnn_fake_library`, a function that returns its own. Tests reset what they change.
struct FakeLibrary {
  std::size_t version = 0;
  int create_status = 0;     // of making a handle, here and below 0 for success
  int heuristic_status = 0;  // of asking for an algorithm
  int run_status = 0;        // of running, before anything has been queued
  int none_found = 0;        // the question for an algorithm finds none
  std::size_t workspace = 1 << 10;  // bytes that the algorithm asks for
  const void* kernel = nullptr;     // that the machine counts for what is queued; set by the library

  int handles = 0, descriptors = 0;  // alive
  int runs = 0;                      // queued
  int last_math = -1;                // of the last question for an algorithm
};

// Elements by the type numbers that each library has of its own, told apart here by their bytes.
enum class FakeType { f32, f16, bf16 };

inline float load(const void* data, FakeType type, std::int64_t at) {
  if (type == FakeType::f32) return static_cast<const float*>(data)[at];
  const std::uint16_t bits = static_cast<const std::uint16_t*>(data)[at];
  return type == FakeType::f16 ? simt::half_to_float(bits) : simt::bfloat16_to_float(bits);
}

inline void store(void* data, FakeType type, std::int64_t at, float value) {
  if (type == FakeType::f32)
    static_cast<float*>(data)[at] = value;
  else
    static_cast<std::uint16_t*>(data)[at] =
        type == FakeType::f16 ? simt::float_to_half(value) : simt::float_to_bfloat16(value);
}

}  // namespace frcnn::simt_test
