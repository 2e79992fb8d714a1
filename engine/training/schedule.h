// The learning rate and the weight average's decay, as functions of the update alone.
#pragma once

#include <cstdint>

#include "training/train_config.h"

namespace frcnn {

// Of the update after `step` updates, 0 <= step < iterations.
double learning_rate(const SolverConfig& solver, std::int64_t iterations, std::int64_t step);

// min(solver.average_decay, (1 + n) / (10 + n)) for update n = step + 1: short memory at first. 0: no average
// is kept.
double average_decay(const SolverConfig& solver, std::int64_t step);

}  // namespace frcnn
