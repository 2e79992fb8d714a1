// Learning rate and average by update, against the formulas of the recipes.
#include <algorithm>
#include <cmath>

#include "catch.h"
#include "training/presets.h"
#include "training/schedule.h"

using namespace frcnn;

TEST_CASE("schedule: the release's steps") {
  SolverConfig solver;
  solver.lr_steps = {30, 40};
  CHECK(learning_rate(solver, 50, 0) == 0.001);
  CHECK(learning_rate(solver, 50, 29) == 0.001);
  CHECK(learning_rate(solver, 50, 30) == Approx(0.0001));
  CHECK(learning_rate(solver, 50, 40) == Approx(0.00001));
  solver.warmup = 10;
  CHECK(learning_rate(solver, 50, 0) == Approx(0.0001));
  CHECK(learning_rate(solver, 50, 9) == Approx(0.001));
  solver.lr_steps.clear();
  CHECK(learning_rate(solver, 50, 49) == 0.001);
}

TEST_CASE("schedule: the cosine of the blood-cell recipe, update by update") {
  const SolverConfig solver = preset("bccd").train.solver;
  const double pi = 3.14159265358979323846;
  for (const std::int64_t n : {3000, 7793}) {
    for (std::int64_t it = 1; it <= n; ++it) {
      const double progress = static_cast<double>(it - 1) / static_cast<double>(n);
      const double wanted = 0.006 * std::min(1.0, static_cast<double>(it) / 300) *
                            (0.5 * (1 + std::cos(pi * progress)) * 0.98 + 0.02);
      REQUIRE(learning_rate(solver, n, it - 1) == Approx(wanted).epsilon(1e-12));
      const double average =
          std::min(0.998, (1.0 + static_cast<double>(it)) / (10.0 + static_cast<double>(it)));
      REQUIRE(average_decay(solver, it - 1) == Approx(average).epsilon(1e-15));
    }
  }
  CHECK(average_decay(SolverConfig{}, 5) == 0);
}
