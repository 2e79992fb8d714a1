#include "choose.h"

#include <algorithm>
#include <limits>

namespace frcnn::cuda {
namespace {

constexpr std::size_t reserved_per_block = 1024;  // of a multiprocessor's shared memory, by the system

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
std::int64_t round_up(std::int64_t a, std::int64_t b) { return ceil_div(a, b) * b; }

// Time of one configuration in units of one tile row's step: waves of blocks, each as long as its steps and
// what starting and finishing costs. Smaller tiles read more per product, which `traffic` stands for.
double cost(const GemmProblem& p, const GemmTile& tile, int splits, int resident) {
  const double blocks =
      static_cast<double>(ceil_div(p.rows, tile.rows) * ceil_div(p.columns, tile.columns) * splits);
  const double waves =
      std::max(1.0, static_cast<double>(ceil_div(static_cast<std::int64_t>(blocks),
                                                 std::int64_t{resident} * p.multiprocessors)));
  // Two blocks share the multiprocessor's units; one alone has nothing to do while it waits. Not measured.
  const double share = resident == 1 ? 0.6 : 1.0;
  const double work = static_cast<double>(tile.rows) * tile.columns;
  const double traffic = 1.0 + 16.0 * (1.0 / tile.rows + 1.0 / tile.columns);
  const double steps = static_cast<double>(ceil_div(p.steps, splits)) + 6.0;
  const double sums = splits > 1 ? 0.5 * splits : 0.0;  // writing and reading the parts, in steps
  return waves * share * work * traffic * (steps + sums);
}

}  // namespace

int gemm_resident(const GemmProblem& problem, const GemmTile& tile) {
  const std::size_t bytes = gemm_shared_bytes(tile);
  if (bytes > problem.shared_per_block) return 0;
  return static_cast<int>(
      std::min<std::size_t>(2, problem.shared_per_multiprocessor / (bytes + reserved_per_block)));
}

GemmChoice choose_gemm(const GemmProblem& problem) {
  GemmChoice best{static_cast<int>(gemm_tiles.size()) - 1, 1};
  double least = std::numeric_limits<double>::infinity();
  for (int t = 0; t < static_cast<int>(gemm_tiles.size()); ++t) {
    const GemmTile& tile = gemm_tiles[static_cast<std::size_t>(t)];
    const int resident = gemm_resident(problem, tile);
    if (resident == 0) continue;
    for (const int splits : gemm_splits) {
      if (splits > problem.most_splits) break;
      if (splits > 1 && problem.steps < std::int64_t{gemm_least_steps} * splits) continue;
      const double c = cost(problem, tile, splits, resident);
      if (c < least) {
        least = c;
        best = {t, splits};
      }
    }
  }
  return best;
}

namespace {

// Wide enough for any problem; FirstConvLayout is what of it fits into shared memory.
struct WideLayout {
  std::int64_t patch_rows, span, copies, pitch, patch, depth, weight_pitch;
};

WideLayout wide_layout(const FirstConvProblem& p) {
  const std::int64_t each = 16 / p.element;
  WideLayout at;
  at.patch_rows = (first_conv_tile_down - 1) * p.stride + p.kernel_h;
  at.span = ((first_conv_tile_across - 1) * p.stride + p.kernel_w) * p.channels;
  at.copies = (at.span + 2 * (each - 1)) / each;
  // Two rows never share 16 bytes: the first ends up to each - 1 late, the second begins as much early.
  at.pitch = at.span + 2 * (each - 1);
  at.pitch += (p.width * p.channels % each - at.pitch % each + each) % each;
  at.patch = round_up(each - 1 + (at.patch_rows - 1) * at.pitch + at.span, each);
  at.depth = round_up(p.kernel_h * p.kernel_w * p.channels, 64 / p.element);
  at.weight_pitch = at.depth + each;
  return at;
}

// No more than what the sizes of these can be is ever shared memory, so that nothing below overflows.
bool is_small(const FirstConvProblem& p) {
  constexpr std::int64_t most = 4096;
  return p.channels >= 1 && p.channels <= first_conv_most_channels && p.kernel_h <= most &&
         p.kernel_w <= most && p.stride <= most && p.width <= 0x10000000 && p.outputs <= 0x40000000;
}

std::int64_t tiles_of(const FirstConvProblem& p) {
  return p.batch * ceil_div(p.out_height, first_conv_tile_down) *
         ceil_div(p.out_width, first_conv_tile_across);
}

}  // namespace

FirstConvLayout first_conv_layout(const FirstConvProblem& problem) {
  const WideLayout at = wide_layout(problem);
  return {static_cast<int>(at.patch_rows),  static_cast<int>(at.span),  static_cast<int>(at.copies),
          static_cast<int>(at.pitch),       static_cast<int>(at.patch), static_cast<int>(at.depth),
          static_cast<int>(at.weight_pitch)};
}

std::size_t first_conv_shared_bytes(const FirstConvProblem& problem, int columns) {
  const WideLayout at = wide_layout(problem);
  const std::int64_t weights = columns * at.weight_pitch * problem.element,
                     patches = 2 * at.patch * problem.element,
                     out = first_conv_out_rows * first_conv_out_pitch * std::int64_t{4};
  return static_cast<std::size_t>(weights + patches + out + at.depth * 4);  // each a multiple of 16
}

std::optional<FirstConvChoice> choose_first_conv(const FirstConvProblem& problem) {
  if (!is_small(problem)) return std::nullopt;
  const std::int64_t tiles = tiles_of(problem);
  if (tiles > 0x40000000) return std::nullopt;
  std::optional<FirstConvChoice> best;
  std::int64_t least = 0;
  for (std::size_t i = 0; i < first_conv_columns.size(); ++i) {
    const int columns = first_conv_columns[i];
    const std::size_t bytes = first_conv_shared_bytes(problem, columns);
    if (bytes > problem.shared_per_block) continue;
    const std::int64_t groups = ceil_div(problem.outputs, columns);
    // Gathering a tile costs about as much as multiplying it with 24 columns. Not measured.
    const std::int64_t cost = groups * (columns + 24);
    if (best && cost > least) continue;
    least = cost;
    const auto resident = static_cast<std::int64_t>(
        std::clamp<std::size_t>(problem.shared_per_multiprocessor / (bytes + reserved_per_block), 1, 2));
    const std::int64_t room = std::max<std::int64_t>(1, resident * problem.multiprocessors / groups);
    best = {static_cast<int>(i), static_cast<int>(std::clamp<std::int64_t>(tiles, 1, room))};
  }
  return best;
}

}  // namespace frcnn::cuda
