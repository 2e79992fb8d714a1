// SIGKILL at any moment costs time, never a bit.
#include "train_run.h"

using namespace frcnn::train_run;

namespace {

void kill_fine_tuning(int times, unsigned seed) {
  const Bench bench;
  check_kills(
      bench, [&](const std::string& out) { return bench.command(out, "60"); }, times, seed);
}

void kill_from_scratch(int times, unsigned seed) {
  const Bench bench;
  check_kills(
      bench, [&](const std::string& out) { return from_scratch(bench, out, "60"); }, times, seed);
}

void kill_frozen(int times, unsigned seed) {
  const Bench bench;
  check_kills(
      bench,
      [&](const std::string& out) {
        return bench.command(out, "60", {"--set", "frozen=conv1"});
      },
      times, seed);
}

}  // namespace

TEST_CASE("train: killed three times, it ends with the same weights") { kill_fine_tuning(3, 1); }

TEST_CASE("train: from random weights, killed twice, it ends with the same weights") {
  kill_from_scratch(2, 2);
}

TEST_CASE("train: with frozen layers, killed twice, it ends with the same weights") { kill_frozen(2, 3); }

TEST_CASE("train: killed fifty times, it ends with the same weights", "[.long]") {
  kill_fine_tuning(20, 4);
  kill_from_scratch(20, 5);
  kill_frozen(10, 6);
}
