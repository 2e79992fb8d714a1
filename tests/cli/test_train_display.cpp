// The numbers of the line that lives on the terminal.
#include "catch.h"
#include "train_display.h"

using namespace frcnn;

namespace {

UpdateRecord update(std::int64_t step, double loss, double seconds) {
  UpdateRecord record;
  record.step = step;
  record.epoch = 1.25;
  record.learning_rate = 0.005;
  record.losses = {loss, 2 * loss, 3 * loss, 4 * loss};
  record.seconds = seconds;
  record.images = {"a", "b"};
  return record;
}

}  // namespace

TEST_CASE("train display: means are exact for equal values, even at the start, and follow new ones") {
  Smoothed mean;
  mean.add(update(1, 1, 0.5));
  CHECK(mean.losses.rpn_bbox == Approx(2));
  CHECK(mean.seconds == Approx(0.5));
  CHECK(mean.images == Approx(2));
  mean.add(update(2, 3, 0.5));  // weights 0.98 and 1
  CHECK(mean.losses.rpn_cls == Approx((0.98 * 1 + 3) / 1.98));
  for (int i = 3; i < 60; ++i) mean.add(update(i, 3, 0.5));
  CHECK(mean.losses.rpn_cls > 2.9);
  CHECK(mean.losses.rpn_cls < 3);
  for (int i = 0; i < 1000; ++i) mean.add(update(60, 1, 2));
  CHECK(mean.losses.bbox == Approx(4).epsilon(1e-6));
  CHECK(mean.seconds == Approx(2).epsilon(1e-6));
}

TEST_CASE("train display: the line tells losses, rate, speed and the time left") {
  Smoothed mean;
  const UpdateRecord record = update(100, 0.125, 0.5);
  mean.add(record);
  CHECK(update_text(mean, record, 4000) ==
        "100/4000  loss 1.250 (rpn 0.125 0.250, head 0.375 0.500)  lr 0.005  epoch 1.2  4.00 images/s  32:30 "
        "left");
  CHECK(update_text(mean, update(4000, 0.125, 0.5), 4000).find(" 0:00 left") != std::string::npos);
  CHECK(duration_text(3723.4) == "1:02:03");
  CHECK(duration_text(245) == "4:05");
  CHECK(duration_text(-1) == "0:00");
}
