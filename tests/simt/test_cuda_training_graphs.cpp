// Training steps as CUDA graphs, on the fake runtime.
#include <iostream>

#include "tests/simt/engine.h"
#include "tests/simt/fake_runtime.h"
#include "tests/simt/training_checks.h"

using namespace frcnn;
using namespace frcnn::small;

namespace {

std::shared_ptr<Device> device(bool graphs) {
  return make_device("cuda:0", Precision::fp32, 0, nullptr, {.graphs = graphs});
}

// Step `number` of two images, with everything that changes from step to step: rates, pictures, and the
// position that drop-out and the choice of targets depend on. A number that is left out shows what nothing
// changes.
UpdateResult step(TrainNetwork& network, int number, double learning_rate) {
  for (int image = 0; image < 2; ++image) {
    const Picture picture(static_cast<unsigned>(2 * number + image));
    network.accumulate(picture.image(), {number, image});
  }
  const double decay =
      std::min(0.9, (1.0 + number) / (10.0 + number));  // of the average, shorter at the start
  return network.update(learning_rate, decay);
}

}  // namespace

TEST_CASE("training steps that are replayed have the bits of steps kernel by kernel", "[training][graphs]") {
  const ModelConfig model = model_of(32);
  const HostTensors weights = random_weights(model, 1);
  const simt::FakeMachine machine;
  TrainNetwork graphs(model, weights, quick(), device(true), limits());
  TrainNetwork plain(model, weights, quick(), device(false), limits());
  const double rates[] = {0.01, 0.01, 0.05, 0.002, 0.0};
  HostTensors before = graphs.state();
  for (int number = 0; number < 5; ++number) {
    INFO("step " << number);
    const double norm = step(graphs, number, rates[number]).gradient_norm;
    CHECK(norm == step(plain, number, rates[number]).gradient_norm);
    const HostTensors after = graphs.state();
    CHECK(same(after, plain.state()));
    CHECK_FALSE(same(after, before));
    before = after;
  }
  const SessionStats stats = graphs.stats();
  CHECK(stats.runs.recordings == 3);  // first image, another image, update
  CHECK(stats.runs.eager == 3);
  CHECK(stats.runs.replays == 5 * 3 - 3);
  CHECK(plain.stats().runs.replays == 0);
  CHECK(machine.violation() == "");
}

TEST_CASE("what changes between steps is none of a training graph's arguments", "[training][graphs]") {
  const ModelConfig model = model_of(32);
  const HostTensors weights = random_weights(model, 1);
  const simt::FakeMachine machine;
  TrainNetwork network(model, weights, quick(), device(true), limits());
  step(network, 0, 0.01);
  step(network, 1, 0.01);
  const HostTensors start = network.state();
  // The weights after one more step from the same start, all of it replayed.
  const auto after = [&](int number, double learning_rate, double average_decay) {
    network.restore(start);
    for (int image = 0; image < 2; ++image) {
      const Picture picture(static_cast<unsigned>(image));
      network.accumulate(picture.image(), {number, image});
    }
    network.update(learning_rate, average_decay);
    return network.state();
  };
  const HostTensors one = after(2, 0.01, 0.9);
  const SessionStats stats = network.stats();
  CHECK(same(after(2, 0.01, 0.9), one));
  CHECK_FALSE(same(after(2, 0.02, 0.9), one));  // learning rate
  CHECK_FALSE(same(after(2, 0.0, 0.9), one));
  CHECK_FALSE(same(after(2, 0.01, 0.5), one));  // decay of the average
  CHECK_FALSE(same(after(3, 0.01, 0.9), one));  // the step that random choices depend on
  CHECK(same(after(2, 0.01, 0.9), one));
  CHECK(network.stats().runs.recordings == stats.runs.recordings);
  CHECK(network.stats().runs.eager == stats.runs.eager);
  CHECK(machine.violation() == "");
}

TEST_CASE("a warm training step is a graph launch and a synchronisation for each image and for the update",
          "[training][graphs]") {
  const ModelConfig model = model_of(32);
  simt::FakeMachine machine;
  TrainNetwork network(model, random_weights(model, 1), quick(), device(true), limits());
  for (int number = 0; number < 2; ++number) step(network, number, 0.01);
  machine.reset_counts();
  step(network, 2, 0.01);
  CHECK(machine.count("cudaGraphLaunch") == 3);
  CHECK(machine.count("cudaStreamSynchronize") == 3);
  CHECK(machine.count_all() == 6 + machine.count("cudaSetDevice"));
  CHECK(machine.replayed_kernels() > 100);
  std::cout << "training step of two images: " << machine.replayed_kernels() << " kernels in 3 graphs\n";
  CHECK(network.stats().allocations_since_plan == 0);
  CHECK(machine.violation() == "");
}

TEST_CASE("an error in a replayed training step is reported, and training goes on", "[training][graphs]") {
  const ModelConfig model = model_of(32);
  const HostTensors weights = random_weights(model, 1);
  simt::FakeMachine machine;
  TrainNetwork network(model, weights, quick(), device(true), limits());
  step(network, 0, 0.01);
  const HostTensors start = network.state();
  const HostTensors want = (step(network, 1, 0.01), network.state());
  for (const char* call : {"cudaGraphLaunch", "cudaStreamSynchronize"}) {
    for (int nth = 1; nth <= 3; ++nth) {
      INFO(call << " " << nth);
      network.restore(start);
      machine.fail(nth, cudaErrorInvalidValue, false, call);
      CHECK_THROWS_WITH(step(network, 1, 0.01), Catch::Contains("invalid argument"));
      CHECK(machine.failed());
      network.restore(start);
      step(network, 1, 0.01);
      CHECK(same(network.state(), want));
    }
  }
  // In the middle of a capture, which the error before has made necessary again.
  for (const char* call : {"cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate"}) {
    INFO(call);
    machine.fail(1, cudaErrorInvalidValue, false, "cudaGraphLaunch");
    CHECK_THROWS_AS(step(network, 1, 0.01), Error);
    network.restore(start);
    machine.fail(1, cudaErrorMemoryAllocation, false, call);
    CHECK_THROWS_WITH(step(network, 1, 0.01), Catch::Contains("out of memory"));
    network.restore(start);
    step(network, 1, 0.01);
    CHECK(same(network.state(), want));
  }
  CHECK(machine.violation() == "");
}
