// What maps are stored as on the CPU: f32 or bf16, read and written through float.
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <type_traits>

#include "cpu/multiversion.h"
#include "frcnn/error.h"
#include "graph/tensor.h"

namespace frcnn::cpu {

struct Bf16 {
  std::uint16_t bits;
};

FRCNN_INLINE float to_float(float v) { return v; }
FRCNN_INLINE float to_float(Bf16 v) { return std::bit_cast<float>(static_cast<std::uint32_t>(v.bits) << 16); }

// Rounds to nearest, ties to even; a NaN stays one. Branchless, so that loops over it vectorise.
template <class T>
FRCNN_INLINE T from_float(float v) {
  if constexpr (std::is_same_v<T, float>) {
    return v;
  } else {
    const auto bits = std::bit_cast<std::uint32_t>(v);
    const std::uint32_t rounded = bits + 0x7FFFu + ((bits >> 16) & 1u), quiet = bits | 0x400000u;
    return {static_cast<std::uint16_t>((v != v ? quiet : rounded) >> 16)};
  }
}

// Of a number that came from a T: nothing is rounded.
template <class T>
FRCNN_INLINE T narrowed(float v) {
  if constexpr (std::is_same_v<T, float>) {
    return v;
  } else {
    return {static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(v) >> 16)};
  }
}

template <class T>
struct Stored {
  using type = T;
};

// f(Stored<T>{}) with the storage type of `dtype`. Throws Error(unsupported) naming `op` for types that maps
// do not have on the CPU.
template <class F>
auto with_storage(DType dtype, const char* op, F&& f) {
  if (dtype == DType::f32) return f(Stored<float>{});
  if (dtype == DType::bf16) return f(Stored<Bf16>{});
  throw Error(ErrorCode::unsupported, std::string(op) + ": the CPU stores maps as f32 or bf16, not as " +
                                          std::string(name_of(dtype)));
}

// The storage of an op whose source and destination are stored alike. Throws Error(unsupported) where they
// are not.
inline DType one_storage(DType src, DType dst, const char* op) {
  if (src == dst) return src;
  throw Error(ErrorCode::unsupported, std::string(op) + ": reads " + std::string(name_of(src)) +
                                          " and cannot write " + std::string(name_of(dst)));
}

}  // namespace frcnn::cpu
