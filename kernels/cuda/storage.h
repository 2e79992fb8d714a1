// What maps are stored as: f32, f16 or bf16, read and written through float, several channels at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#include "device.h"
#include "frcnn/error.h"
#include "graph/tensor.h"

namespace frcnn::cuda {

__device__ __forceinline__ float to_float(float v) { return v; }
__device__ __forceinline__ float to_float(half v) { return __half2float(v); }
__device__ __forceinline__ float to_float(nv_bfloat16 v) { return __bfloat162float(v); }

template <class T>
__device__ __forceinline__ T from_float(float v) {
  if constexpr (sizeof(T) == 4) {
    return v;
  } else if constexpr (std::is_same_v<T, half>) {
    return __float2half_rn(v);
  } else {
    return __float2bfloat16_rn(v);
  }
}

// `lanes` neighbouring channels, moved by one load or store.
template <class T, int lanes>
struct alignas(sizeof(T) * lanes) Pack {
  T lane[lanes];
};

template <class T>
struct Stored {
  using type = T;
};

// f(Stored<T>{}) with the storage type of `dtype`. Throws Error(unsupported) naming `op` for types that maps
// do not have.
template <class F>
auto with_storage(DType dtype, const char* op, F&& f) {
  switch (dtype) {
    case DType::f32:
      return f(Stored<float>{});
    case DType::f16:
      return f(Stored<half>{});
    case DType::bf16:
      return f(Stored<nv_bfloat16>{});
    default:
      break;
  }
  throw Error(ErrorCode::unsupported,
              std::string(op) + ": maps cannot be stored as " + std::string(name_of(dtype)));
}

// The storage of an op whose source and destination are stored alike. Throws Error(unsupported) where they
// are not.
inline DType one_storage(DType src, DType dst, const char* op) {
  if (src == dst) return src;
  throw Error(ErrorCode::unsupported, std::string(op) + ": reads " + std::string(name_of(src)) +
                                          " and cannot write " + std::string(name_of(dst)));
}

template <int n>
struct Lanes {
  static constexpr int value = n;
};

// f(Stored<T>{}, Lanes<n>{}): the storage type, and as many channels as a thread takes at a time: 16 bytes of
// them, or 2, or 1, whichever divides `channels`.
template <class F>
auto with_packs(DType dtype, std::int64_t channels, const char* op, F&& f) {
  return with_storage(dtype, op, [&](auto stored) {
    constexpr int most = 16 / static_cast<int>(sizeof(typename decltype(stored)::type));
    if (channels % most == 0) return f(stored, Lanes<most>{});
    if (channels % 2 == 0) return f(stored, Lanes<2>{});
    return f(stored, Lanes<1>{});
  });
}

// f(Lanes<n>{}) for f32: as many of `channels` as a thread takes at a time.
template <class F>
auto with_f32_packs(std::int64_t channels, F&& f) {
  if (channels % 4 == 0) return f(Lanes<4>{});
  if (channels % 2 == 0) return f(Lanes<2>{});
  return f(Lanes<1>{});
}

// Blocks of `threads` that cover n items, at most `limit` of them: kernels stride over the rest.
inline dim3 blocks_for(std::int64_t n, int threads, std::int64_t limit = 1 << 16) {
  const std::int64_t blocks = (n + threads - 1) / threads;
  return dim3(static_cast<unsigned>(blocks < 1 ? 1 : blocks > limit ? limit : blocks));
}

// x * y blocks, where each block has a part of its own. Throws Error(unsupported) naming `op` where there are
// more than a grid may have.
inline dim3 checked_grid(const char* op, std::int64_t x, std::int64_t y = 1) {
  constexpr std::int64_t most_x = 0x7FFFFFFF, most_y = 65535;
  if (x > most_x || y > most_y)
    throw Error(ErrorCode::unsupported, std::string(op) + ": a grid of " + std::to_string(x) + "x" +
                                            std::to_string(y) + " blocks, a GPU takes " +
                                            std::to_string(most_x) + "x" + std::to_string(most_y));
  return dim3(static_cast<unsigned>(x), static_cast<unsigned>(y));
}

// A size that a kernel counts in an int. Throws Error(unsupported) naming `op`.
inline int checked_int(const char* op, std::int64_t size) {
  if (size > 0x7FFFFFFF)
    throw Error(ErrorCode::unsupported,
                std::string(op) + ": a size of " + std::to_string(size) + " is more than its kernel counts");
  return static_cast<int>(size);
}

}  // namespace frcnn::cuda
