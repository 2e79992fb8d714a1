// Shape -> kernel configuration. Plain host code, so that it is tested without a GPU; the table is the one
// the launcher instantiates, so that a test can launch every configuration there is.
#pragma once

#include <array>
#include <cstdint>

namespace frcnn::cuda {

struct GemmTile {
  int rows, columns;  // of the result, per block of 256 threads
  bool operator==(const GemmTile&) const = default;
};
inline constexpr std::array<GemmTile, 3> gemm_tiles{{{128, 128}, {128, 64}, {64, 64}}};

// The numbers of parts that k may be cut into, and the fewest steps that a part has if there are several.
inline constexpr std::array<int, 5> gemm_splits{1, 2, 4, 8, 16};
inline constexpr int gemm_least_steps = 8;

struct GemmProblem {
  std::int64_t rows = 0, columns = 0;  // output pixels (or fully connected rows), output channels
  std::int64_t steps = 0;              // of k, 64 bytes each
  int multiprocessors = 1;
};

struct GemmChoice {
  int tile = 0;    // index into gemm_tiles
  int splits = 1;  // one of gemm_splits: parts of k that different blocks sum, added up in order afterwards
  bool operator==(const GemmChoice&) const = default;
};

// The tile and the number of splits that leave the fewest multiprocessors idle for the least extra work.
GemmChoice choose_gemm(const GemmProblem& problem);

}  // namespace frcnn::cuda
