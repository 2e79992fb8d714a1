// One kernel per instruction or device function, so that each can be held alone against its definition. Every
// pointer is visible to the device; the launches are queued on the default stream.
#pragma once

#include <cstdint>

namespace frcnn::simt_test {

enum class Mma : std::uint8_t { f16, bf16, tf32 };

// `cases` independent warps. Registers lie as [case][lane][register]: a 4, b 2, c and d 4.
void run_mma(Mma kind, int cases, const std::uint32_t* a, const std::uint32_t* b, const float* c, float* d);

// Source: [count][8 rows][8] elements. Result: [lane][count] registers.
void run_ldmatrix(int count, bool transposed, const std::uint16_t* source, std::uint32_t* result);

void run_cvt_rna_tf32(int values, const float* value, std::uint32_t* result);

// Thread i copies `bytes` bytes, source_bytes[i] of them from the source; the destination is then written
// out.
void run_cp_async(int bytes, int threads, const std::uint8_t* source, const int* source_bytes,
                  std::uint8_t* result);

enum class Shuffle : std::uint8_t { from, up, down, exchange };
// Each lane shuffles value[lane] among the lanes of `mask`; lanes outside of it return theirs. Result:
// [lane].
void run_shuffle(Shuffle kind, unsigned mask, int width, const int* argument, const float* value,
                 float* result);

// Result: [lane][7]: ballot, any, all, active mask, match_any(value), reduce_add(value), reduce_max(value),
// each taken by the lanes of `mask` only; the others write zeros.
void run_votes(unsigned mask, const std::uint32_t* value, std::uint32_t* result);

// `threads` threads in blocks of 64, each with value[i], on cells that start as `cell` gives them: add int,
// unsigned, ull, float; min, max int; and, or, xor unsigned; a count made by compare-and-swap; exchange.
struct AtomicCells {
  int add_int, min_int, max_int;
  unsigned add_unsigned, and_unsigned, or_unsigned, xor_unsigned, swapped_count, exchanged;
  unsigned long long add_ull, max_ull;
  float add_float;
};
void run_atomics(int threads, const int* value, AtomicCells* cell);

// Result: [threads in the grid][6]: linear index of the thread, and what the three __syncthreads_ votes,
// __popc and __byte_perm say.
void run_block_votes(int blocks, int threads, const int* predicate, int* result);

}  // namespace frcnn::simt_test
