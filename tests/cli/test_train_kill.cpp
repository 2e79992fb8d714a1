// SIGKILL at any moment costs time, never a bit.
#include "train_run.h"

TEST_CASE("train: killed three times, it ends with the same weights") { frcnn::train_run::check_kills(3, 1); }

TEST_CASE("train: killed fifty times, it ends with the same weights", "[.long]") {
  frcnn::train_run::check_kills(50, 2);
}
