#include "training/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace frcnn {

double learning_rate(const SolverConfig& solver, std::int64_t iterations, std::int64_t step) {
  double rate = solver.base_lr;
  if (solver.policy == LrPolicy::cosine) {
    const double progress = static_cast<double>(step) / static_cast<double>(iterations);
    const double falling = 0.5 * (1 + std::cos(std::numbers::pi * progress));
    rate *= falling * (1 - solver.final_fraction) + solver.final_fraction;
  } else {
    for (const std::int64_t drop : solver.lr_steps)
      if (step >= drop) rate *= solver.gamma;
  }
  if (step < solver.warmup) rate *= static_cast<double>(step + 1) / static_cast<double>(solver.warmup);
  return rate;
}

double average_decay(const SolverConfig& solver, std::int64_t step) {
  const auto n = static_cast<double>(step + 1);
  return std::min(solver.average_decay, (1 + n) / (10 + n));
}

}  // namespace frcnn
