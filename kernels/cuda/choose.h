// Shape -> kernel configuration. Plain host code, so that it is tested without a GPU; the table is the one
// the launcher instantiates, so that a test can launch every configuration there is.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace frcnn::cuda {

struct GemmTile {
  int rows, columns;  // of the result, per block of 256 threads
  bool operator==(const GemmTile&) const = default;
};
inline constexpr std::array<GemmTile, 3> gemm_tiles{{{128, 128}, {128, 64}, {64, 64}}};

// A tile's shared memory: stages of operands, 80 bytes a row or column, and 12 bytes a row of what it
// gathers.
inline constexpr int gemm_stages = 4, gemm_pitch_bytes = 80, gemm_row_bytes = 12;
constexpr std::size_t gemm_shared_bytes(const GemmTile& tile) {
  return static_cast<std::size_t>(gemm_stages * gemm_pitch_bytes * (tile.rows + tile.columns) +
                                  gemm_row_bytes * tile.rows);
}

// The numbers of parts that k may be cut into, and the fewest steps that a part has if there are several.
inline constexpr std::array<int, 7> gemm_splits{1, 2, 4, 8, 16, 32, 64};
inline constexpr int gemm_least_steps = 8;

struct GemmProblem {
  std::int64_t rows = 0, columns = 0;  // output pixels (or fully connected rows), output channels
  std::int64_t steps = 0;              // of k, 64 bytes each
  int multiprocessors = 1;
  std::size_t shared_per_block = 163 << 10, shared_per_multiprocessor = 164 << 10;  // of the GPU
  int most_splits = 16;  // what there is room for; weight gradients, with few rows and long sums, take more
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

// First layers. A block makes tiles of 8x16 output pixels of so many output channels, whose weights it keeps.
inline constexpr std::array<int, 3> first_conv_columns{32, 64, 96};
inline constexpr int first_conv_most_channels = 4, first_conv_threads = 256;
inline constexpr int first_conv_tile_down = 8, first_conv_tile_across = 16;
inline constexpr int first_conv_out_rows = 128, first_conv_out_pitch = 36;  // floats on their way out

struct FirstConvProblem {
  std::int64_t batch = 1, width = 1, channels = 1;  // of the source
  std::int64_t kernel_h = 1, kernel_w = 1, stride = 1;
  std::int64_t out_height = 1, out_width = 1, outputs = 1;  // of the convolution, before any pooling
  int element = 4;                                          // bytes of a source's element: 2 or 4
  int multiprocessors = 1;
  std::size_t shared_per_block = 163 << 10, shared_per_multiprocessor = 164 << 10;  // of the GPU
};

// What lies where in shared memory, in elements of the source.
struct FirstConvLayout {
  int patch_rows = 0;    // rows of the source under a tile
  int span = 0;          // elements of such a row
  int copies = 0;        // of 16 bytes, as many as a row needs wherever it begins
  int pitch = 0;         // from row to row: as in the source modulo 16 bytes, and far enough for whole copies
  int patch = 0;         // all of them
  int depth = 0;         // k, filled up to steps of 64 bytes
  int weight_pitch = 0;  // an odd number of 16 bytes, so that eight columns lie in different banks
};
// Of a problem for which there is a choice.
FirstConvLayout first_conv_layout(const FirstConvProblem& problem);
std::size_t first_conv_shared_bytes(const FirstConvProblem& problem, int columns);

struct FirstConvChoice {
  int columns = 0;  // index into first_conv_columns
  int blocks = 1;   // that share the tiles, for each group of columns
  bool operator==(const FirstConvChoice&) const = default;
};

// The columns that pad least and read the source least often, and as many blocks as are resident; none where
// the channels are too many or a patch does not fit.
std::optional<FirstConvChoice> choose_first_conv(const FirstConvProblem& problem);

}  // namespace frcnn::cuda
