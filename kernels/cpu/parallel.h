// The one loop over threads of the CPU kernels.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace frcnn::cpu {

// Cuts [0, n) into min(threads, n) contiguous chunks and calls f(begin, end), or f(begin, end, chunk) if f
// takes three numbers, once for each. The cut depends on n and threads only, never on how many threads the
// system grants, so a kernel may own one slice of its workspace per chunk. f must not throw. Without OpenMP
// the chunks run one by one.
template <class F>
void parallel_for(std::int64_t n, int threads, F&& f) {
  if (n <= 0) return;
  const std::int64_t chunks = std::clamp<std::int64_t>(threads, 1, n);
  const auto run = [&](std::int64_t chunk) {
    // The first n % chunks chunks are one longer.
    const std::int64_t base = n / chunks, longer = n % chunks;
    const std::int64_t begin = chunk * base + std::min(chunk, longer);
    const std::int64_t end = begin + base + (chunk < longer ? 1 : 0);
    if constexpr (std::is_invocable_v<F&, std::int64_t, std::int64_t, int>) {
      f(begin, end, static_cast<int>(chunk));
    } else {
      f(begin, end);
    }
  };
  if (chunks == 1) {
    run(0);
    return;
  }
#ifdef _OPENMP
#pragma omp parallel for num_threads(static_cast <int>(chunks)) schedule(static, 1)
#endif
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) run(chunk);
}

}  // namespace frcnn::cpu
