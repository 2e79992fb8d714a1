// Training through the CUDA device on the emulator, against the CPU device.
#include <iostream>

#include "tests/simt/engine.h"
#include "tests/simt/fake_runtime.h"
#include "tests/simt/training_checks.h"

using namespace frcnn;
using namespace frcnn::small;

namespace {

// The largest difference of any tensor, relative to its largest move from `before`.
double largest_difference(const HostTensors& a, const HostTensors& b, const HostTensors& before) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  for (const auto& [name, tensor] : a) {
    const HostTensor &other = b.at(name), &start = before.at(name);
    double difference = 0, move = 0;
    for (std::size_t i = 0; i < tensor.data.size(); ++i) {
      difference = std::max(difference, static_cast<double>(std::abs(tensor.data[i] - other.data[i])));
      move = std::max(move, static_cast<double>(std::abs(tensor.data[i] - start.data[i])));
    }
    INFO(name << " moves by " << move << ", differs by " << difference);
    CHECK(difference <= 1e-3 * move);  // the tolerance of the reference data's gradients
    worst = std::max(worst, move > 0 ? difference / move : 0.0);
  }
  return worst;
}

// Two images, then an update, on the CPU and on CUDA.
void check_step(const std::string& what, const ModelConfig& model, const TrainConfig& config, Precision precision) {
  const simt::FakeMachine machine;
  const HostTensors weights = spread_weights(model);
  TrainNetwork cpu(model, weights, config, make_cpu_device(1), limits());
  TrainNetwork cuda(model, weights, config, make_device("cuda:0", precision), limits());
  const HostTensors before = cpu.state();
  // The second image's gradients are added to the first one's.
  for (int image = 0; image < 2; ++image) {
    const Picture picture(static_cast<unsigned>(image));
    check_losses(cuda, cpu, picture.image(), {0, image});
  }
  check_update(cuda, cpu);
  const double worst = largest_difference(cpu.state(), cuda.state(), before);
  std::cout << "training step, " << what << ", " << name_of(precision) << ": weights differ by " << worst << " of their move\n";
  CHECK(machine.violation() == "");
}

}  // namespace

TEST_CASE("a training step on CUDA has the CPU's losses and moves weights as the CPU does", "[training]") {
  for (const Precision precision : {Precision::fp32, Precision::tf32x3})
    check_step("small", model_of(simt::kRaceCheck ? 48 : 64), quick(), precision);
}

TEST_CASE("so does a step of the paper's losses and anchors, RoI align, LRN across channels and frozen layers", "[training]") {
  ModelConfig model = model_of(simt::kRaceCheck ? 48 : 64);
  model.anchor_rule = AnchorRule::paper;
  model.roi_op = RoiOp::align;
  model.roi_sampling_ratio = 2;
  model.roi_aligned = true;
  model.dropout_test_scale = 1;
  for (BackboneLayer& layer : model.backbone) {
    layer.lrn.region = LrnRegion::across_channels;
    layer.lrn.size = 5;
    layer.lrn.alpha = 1e-4f;
  }
  TrainConfig config = quick();
  config.dropout_scales_in_training = true;
  config.loss.norm = LossNorm::paper;
  config.rpn.positives = PositiveAnchors::fallback;
  config.frozen = {"conv1"};
  config.solver.iter_size = 2;
  config.solver.clip_norm = 0.5;
  config.solver.decay_biases = false;
  config.units.hidden = 4;
  check_step("of many options", model, config, Precision::fp32);
}

TEST_CASE("training on CUDA gives the same bits in every thread order", "[training]") {
  const ModelConfig model = model_of(32);
  const HostTensors weights = spread_weights(model);
  HostTensors first;
  for (const simt::Schedule& schedule : simt::kSchedules) {
    simt::Settings settings = simt::settings();
    settings.schedule = schedule;
    const simt::ScopedSettings during(settings);
    const simt::FakeMachine machine;
    TrainNetwork network(model, weights, quick(), make_device("cuda:0"), limits());
    train(network, 0, 1, 2);
    if (first.empty()) first = network.state();
    CHECK(same(first, network.state()));
    CHECK(machine.violation() == "");
    if (simt::kRaceCheck) break;  // which sees a race in any order
  }
}

TEST_CASE("training on CUDA names what is not finite, and 16-bit maps are refused", "[training]") {
  const ModelConfig model = model_of(32);
  HostTensors weights = spread_weights(model);
  overflow_fc7(weights);
  const simt::FakeMachine machine;
  TrainNetwork network(model, weights, quick(), make_device("cuda:0"), limits());
  const HostTensors before = network.state();
  CHECK_THROWS_WITH(network.accumulate(Picture(0).image(), {3, 0}),
                    Catch::Contains("picture") && Catch::Contains("step 3") && Catch::Contains("fc7"));
  CHECK(same(network.state(), before));
  CHECK_THROWS_WITH(TrainNetwork(model, weights, quick(), make_device("cuda:0", Precision::bf16), limits()),
                    Catch::Contains("bf16"));
}
