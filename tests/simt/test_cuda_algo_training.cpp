// Training with the forward products of the fake libraries.
#include "tests/simt/algo_fixture.h"
#include "tests/simt/training_checks.h"

using namespace frcnn;
using namespace frcnn::small;
using frcnn::simt_test::FakeLibraries;

// Weights in training live on the device as published, so they are packed for a library there, before each run.
TEST_CASE("a training step with the libraries' kernels has the losses of one with ours", "[algos][training]") {
  const simt::FakeMachine machine;
  const FakeLibraries libraries;
  const ModelConfig model = model_of(48);
  const HostTensors weights = spread_weights(model);
  TrainNetwork ours(model, weights, quick(), make_device("cuda:0"), limits());
  TrainNetwork theirs(model, weights, quick(),
                      make_device("cuda:0", Precision::fp32, 0, nullptr, simt_test::gpu_with(Algo::cudnn)),
                      limits());
  // The second step is replayed, with weights that have moved far enough to show in the losses, and not so far that
  // a loss becomes a small difference of large scores.
  double losses[2];
  for (double& loss : losses) {
    loss = check_losses(theirs, ours, Picture(1).image(), {0, 0});
    check_update(theirs, ours, 1e-4);
  }
  CHECK(std::abs(losses[1] - losses[0]) > 1e-3 * losses[0]);
  CHECK(libraries.runs() > 0);
  CHECK(machine.violation() == "");
}
