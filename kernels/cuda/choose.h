// Shape -> kernel configuration. Plain host code, so that it is tested without a GPU; the table is the one
// the launcher instantiates, so that a test can launch every configuration there is.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace frcnn::cuda {

struct GemmTile {
  int rows, columns;  // of the result, per block of 256 threads
  bool operator==(const GemmTile&) const = default;
};
inline constexpr std::array<GemmTile, 3> gemm_tiles{{{128, 128}, {128, 64}, {64, 64}}};

// A tile's shared memory: stages of operands, 80 bytes a row or column, and 12 bytes a row of what it gathers.
inline constexpr int gemm_stages = 4, gemm_pitch_bytes = 80, gemm_row_bytes = 12;
constexpr std::size_t gemm_shared_bytes(const GemmTile& tile) {
  return static_cast<std::size_t>(gemm_stages * gemm_pitch_bytes * (tile.rows + tile.columns) +
                                  gemm_row_bytes * tile.rows);
}

// The numbers of parts that k may be cut into, and the fewest steps that a part has if there are several.
inline constexpr std::array<int, 5> gemm_splits{1, 2, 4, 8, 16};
inline constexpr int gemm_least_steps = 8;

struct GemmProblem {
  std::int64_t rows = 0, columns = 0;  // output pixels (or fully connected rows), output channels
  std::int64_t steps = 0;              // of k, 64 bytes each
  int multiprocessors = 1;
  std::size_t shared_per_block = 163 << 10, shared_per_multiprocessor = 164 << 10;  // of the GPU
};

// How many blocks of the tile a multiprocessor holds at a time: none, one, or two, for which the kernel's
// registers are bounded.
int gemm_resident(const GemmProblem& problem, const GemmTile& tile);

struct GemmChoice {
  int tile = 0;    // index into gemm_tiles
  int splits = 1;  // one of gemm_splits: parts of k that different blocks sum, added up in order afterwards
  bool operator==(const GemmChoice&) const = default;
};

// The tile and the number of splits that leave the fewest multiprocessors idle for the least extra work, of
// the tiles that a block may have the shared memory for; the last one always counts as one.
GemmChoice choose_gemm(const GemmProblem& problem);

}  // namespace frcnn::cuda
