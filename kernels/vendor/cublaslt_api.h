// What is used of cuBLASLt's C interface (12 and 13), declared here so that building needs none of its
// headers; where they are found, tests/simt/cublaslt_header.cpp compares. Handles, descriptors and streams
// are pointers, enums ints.
#pragma once

#include <cstddef>
#include <cstdint>

namespace frcnn::vendor::cublaslt {

using Status = int;
inline constexpr Status success = 0, allocation_failed = 3, invalid_value = 7, not_supported = 15;

inline constexpr int real_32f = 0, real_16f = 2, real_16bf = 14;
inline constexpr int compute_32f = 68, compute_32f_fast_tf32 = 77;
inline constexpr std::int32_t transpose = 1;
inline constexpr int desc_transpose_a = 3, desc_epilogue = 7, desc_bias_pointer = 8;
inline constexpr std::int32_t epilogue_bias = 4, epilogue_relu_bias = 6;
inline constexpr int preference_workspace = 1, preference_alignment_a = 5, preference_alignment_b = 6,
                     preference_alignment_c = 7, preference_alignment_d = 8;
inline constexpr int config_id = 0;

struct Algorithm {
  std::uint64_t data[8];
};
struct HeuristicResult {
  Algorithm algorithm;
  std::size_t workspace_bytes;
  Status state;
  float waves;
  int reserved[4];
};

struct Functions {
  std::size_t (*get_version)();  // 130100: 13.1.0
  const char* (*get_status_name)(Status status);
  Status (*create)(void** handle);
  Status (*destroy)(void* handle);
  Status (*create_matmul)(void** matmul, int compute_type, int scale_type);
  Status (*destroy_matmul)(void* matmul);
  Status (*set_matmul)(void* matmul, int attribute, const void* value, std::size_t bytes);
  // Columns lie one behind the other, `ld` elements apart.
  Status (*create_layout)(void** layout, int type, std::uint64_t rows, std::uint64_t columns, std::int64_t ld);
  Status (*destroy_layout)(void* layout);
  Status (*create_preference)(void** preference);
  Status (*destroy_preference)(void* preference);
  Status (*set_preference)(void* preference, int attribute, const void* value, std::size_t bytes);
  // Best first.
  Status (*get_heuristic)(void* handle, void* matmul, void* a, void* b, void* c, void* d, void* preference,
                          int requested, HeuristicResult* results, int* returned);
  Status (*get_algorithm)(const Algorithm* algorithm, int attribute, void* value, std::size_t bytes,
                          std::size_t* written);
  // d = epilogue(alpha * a b + beta * c)
  Status (*matmul)(void* handle, void* matmul, const void* alpha, const void* a, void* a_layout, const void* b,
                   void* b_layout, const void* beta, const void* c, void* c_layout, void* d, void* d_layout,
                   const Algorithm* algorithm, void* workspace, std::size_t workspace_bytes, void* stream);
};

}  // namespace frcnn::vendor::cublaslt
