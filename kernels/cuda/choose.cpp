#include "choose.h"

#include <algorithm>
#include <limits>

namespace frcnn::cuda {
namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

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
  constexpr std::size_t reserved = 1024;  // by the system, of each block
  const std::size_t bytes = gemm_shared_bytes(tile);
  if (bytes > problem.shared_per_block) return 0;
  return static_cast<int>(std::min<std::size_t>(2, problem.shared_per_multiprocessor / (bytes + reserved)));
}

GemmChoice choose_gemm(const GemmProblem& problem) {
  GemmChoice best{static_cast<int>(gemm_tiles.size()) - 1, 1};
  double least = std::numeric_limits<double>::infinity();
  for (int t = 0; t < static_cast<int>(gemm_tiles.size()); ++t) {
    const GemmTile& tile = gemm_tiles[static_cast<std::size_t>(t)];
    const int resident = gemm_resident(problem, tile);
    if (resident == 0) continue;
    for (const int splits : gemm_splits) {
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

}  // namespace frcnn::cuda
