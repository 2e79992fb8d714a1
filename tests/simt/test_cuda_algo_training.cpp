// Training with the forward products of the fake libraries.
#include "engine/small_training.h"
#include "tests/simt/algo_fixture.h"

using namespace frcnn;
using namespace frcnn::small;
using frcnn::simt_test::FakeLibraries;

// Weights in training live on the device as published, so they are packed for a library there, before each run.
TEST_CASE("a training step with the libraries' kernels has the losses of one with ours", "[algos][training]") {
  const simt::FakeMachine machine;
  const FakeLibraries libraries;
  ModelConfig model = small_model();
  model.short_side = 48;
  model.long_side = 96;
  const TrainLimits limits{150 * 110, 32};
  const HostTensors weights = random_weights(model, 1);
  TrainNetwork ours(model, weights, quick(), make_device("cuda:0"), limits);
  TrainNetwork theirs(model, weights, quick(),
                      make_device("cuda:0", Precision::fp32, 0, nullptr, simt_test::gpu_with(Algo::cudnn)), limits);
  for (int step = 0; step < 2; ++step) {  // the second one with weights that have moved, replayed
    const small::Picture picture(1);
    const TrainLosses want = ours.accumulate(picture.image(), {0, step}),
                      got = theirs.accumulate(picture.image(), {0, step});
    CHECK(want.cls > 0);
    CHECK(got.rpn_cls == Approx(want.rpn_cls).epsilon(1e-4));
    CHECK(got.rpn_bbox == Approx(want.rpn_bbox).epsilon(1e-4));
    CHECK(got.cls == Approx(want.cls).epsilon(1e-4));
    CHECK(got.bbox == Approx(want.bbox).epsilon(1e-4));
    const double norm = ours.update(0.01, 0.9).gradient_norm;
    CHECK(theirs.update(0.01, 0.9).gradient_norm == Approx(norm).epsilon(1e-4));
  }
  CHECK(libraries.runs() > 0);
  CHECK(machine.violation() == "");
}
