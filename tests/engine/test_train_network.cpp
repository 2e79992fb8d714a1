#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "catch.h"
#include "detector/detector.h"
#include "engine/small_training.h"
#include "frcnn/error.h"
#include "kernels.h"
#include "training/train_network.h"
#include "training/training_units.h"

using namespace frcnn;
using namespace frcnn::small;

namespace {

double mean(const std::vector<double>& values, std::size_t first, std::size_t count) {
  double sum = 0;
  for (std::size_t i = first; i < first + count; ++i) sum += values[i];
  return sum / static_cast<double>(count);
}

}  // namespace

TEST_CASE("training lowers the loss, and the deployed model detects", "[training]") {
  const ModelConfig model = small_model();
  TrainNetwork network(model, random_weights(model, 1), quick(), make_cpu_device(2));
  const std::vector<double> losses = train(network, 0, 60, 1, 0.005);
  INFO(mean(losses, 0, 8) << " -> " << mean(losses, 52, 8));
  CHECK(mean(losses, 52, 8) < 0.8 * mean(losses, 0, 8));
  const auto deployed = network.deploy();
  Detector detector(deployed, DetectorOptions{"cpu", Precision::fp32, 2, {}});
  const Picture picture(0);
  const DetectResult result = detector.detect({picture.bgr.data(), picture.width, picture.height});
  CHECK(result.proposal_count > 0);
}

TEST_CASE(
    "equal seeds give equal bits, other seeds other ones, and a restored network goes on as if nothing was",
    "[training]") {
  const ModelConfig model = small_model();
  const HostTensors weights = random_weights(model, 2);
  TrainConfig config = quick();
  config.frozen = {"conv1"};
  TrainNetwork a(model, weights, config, make_cpu_device(2)), b(model, weights, config, make_cpu_device(2));
  CHECK(train(a, 0, 4, 2) == train(b, 0, 4, 2));
  CHECK(same(a.state(), b.state()));
  CHECK(a.state().count("conv1.weight") == 0);
  const HostTensors half = a.state();
  TrainNetwork c(model, weights, config, make_cpu_device(2));
  c.restore(half);
  CHECK(train(a, 4, 3, 2) == train(c, 4, 3, 2));
  CHECK(same(a.state(), c.state()));
  CHECK_FALSE(same(a.state(), half));
  config.seed = 4;
  TrainNetwork other(model, weights, config, make_cpu_device(2));
  train(other, 0, 4, 2);
  CHECK_FALSE(same(other.state(), half));
}

TEST_CASE("units of training change how weights move, not what the network computes", "[training]") {
  const ModelConfig model = small_model();
  const HostTensors weights = random_weights(model, 3);
  TrainConfig plain = quick();
  plain.dropout = 0;
  TrainConfig units = plain;
  units.units.input_offset = {3, -5, 8};
  units.units.input_scale = 16;
  units.units.hidden = 64;
  const Picture picture(1);
  TrainNetwork a(model, weights, plain, make_cpu_device(2)), b(model, weights, units, make_cpu_device(2));
  const TrainLosses la = a.accumulate(picture.image(), {}), lb = b.accumulate(picture.image(), {});
  CHECK(la.rpn_cls == Approx(lb.rpn_cls).epsilon(1e-4));
  CHECK(la.rpn_bbox == Approx(lb.rpn_bbox).epsilon(1e-4));
  CHECK(la.cls == Approx(lb.cls).epsilon(1e-4));
  CHECK(la.bbox == Approx(lb.bbox).epsilon(1e-4));
  // There and back again: powers of two are exact, the standard deviations .1 and .2 round once each way.
  const auto deployed = b.deploy();
  for (const auto& [name, tensor] : weights) {
    INFO(name);
    const float* got = deployed->weights.at(name).view.as<const float>();
    const bool rounds = name == "conv1.bias" || name.rfind("bbox_pred", 0) == 0;
    for (std::size_t i = 0; i < tensor.data.size(); ++i) {
      if (rounds)
        REQUIRE(got[i] == Approx(tensor.data[i]).epsilon(1e-6).margin(1e-5));
      else
        REQUIRE(got[i] == tensor.data[i]);
    }
  }
  units.units.hidden = 2;
  ModelConfig without = model;
  std::erase_if(without.backbone, [](const BackboneLayer& l) { return l.kind == BackboneLayer::Kind::lrn; });
  CHECK_THROWS_AS(in_training_units(without, units), Error);
}

TEST_CASE("frozen layers cost no backward: less memory, weights untouched", "[training]") {
  const ModelConfig model = small_model();
  const HostTensors weights = random_weights(model, 4);
  TrainConfig config = quick();
  TrainNetwork all(model, weights, config, make_cpu_device(1));
  config.frozen = {"conv1", "conv2"};
  TrainNetwork part(model, weights, config, make_cpu_device(1));
  CHECK(part.arena_bytes() < all.arena_bytes());
  CHECK(part.state_bytes() < all.state_bytes());
  train(part, 0, 2);
  const auto deployed = part.deploy();
  for (const char* name : {"conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"})
    CHECK(std::memcmp(deployed->weights.at(name).view.data, weights.at(name).data.data(),
                      weights.at(name).data.size() * sizeof(float)) == 0);
}

TEST_CASE("images without objects, tiny and border boxes train", "[training]") {
  const ModelConfig model = small_model();
  TrainNetwork network(model, random_weights(model, 5), quick(), make_cpu_device(2));
  Picture picture(2);
  picture.objects.clear();
  CHECK(std::isfinite(network.accumulate(picture.image(), {0, 0}).total()));
  picture.objects = {{{0, 0, 0, 0}, 1}, {{149, 109, 149, 109}, 2}, {{0, 0, 149, 109}, 1}};
  CHECK(std::isfinite(network.accumulate(picture.image(), {0, 1}).total()));
  picture.objects.assign(100, {{10, 10, 40, 40}, 2});
  CHECK(std::isfinite(network.accumulate(picture.image(), {0, 2}).total()));
  CHECK(std::isfinite(network.update(0.001, 0.9).gradient_norm));
}

TEST_CASE("steps in which nothing can be drawn train what is left", "[training]") {
  const Picture picture(2);
  const auto step = [](const ModelConfig& model, const TrainImage& image) {
    TrainNetwork network(model, random_weights(model, 5), quick(), make_cpu_device(2));
    const TrainLosses losses = network.accumulate(image, {});
    CHECK(std::isfinite(network.update(0.001, 0.9).gradient_norm));
    return losses;
  };
  ModelConfig model = small_model();
  model.anchor_scales = {64};  // no anchor lies inside the image
  const TrainLosses outside = step(model, picture.image());
  CHECK(outside.rpn_cls == 0);
  CHECK(outside.rpn_bbox == 0);
  CHECK(outside.cls > 0);

  model = small_model();
  model.rpn_min_size = 10000;  // no proposal survives: only the objects are left to draw from
  CHECK(step(model, picture.image()).bbox > 0);
  TrainImage empty = picture.image();
  empty.objects.clear();
  const TrainLosses none = step(model, empty);
  CHECK(none.cls == 0);
  CHECK(none.bbox == 0);
  CHECK(none.rpn_cls > 0);

  model = small_model();
  model.anchor_scales = {2};  // 6 x 10 cells of 3 anchors: fewer than objects
  TrainImage crowd = picture.image();
  for (int k = 0; k < 250; ++k) {
    const auto x = static_cast<float>(k % 25 * 5), y = static_cast<float>(k / 25 * 8);
    crowd.objects.push_back({{x, y, x + 20, y + 25}, 1 + k % 2});
  }
  const TrainLosses crowded = step(model, crowd);
  CHECK(crowded.rpn_bbox > 0);
  CHECK(std::isfinite(crowded.total()));
}

TEST_CASE("bad input to training is named and loses nothing", "[training]") {
  const ModelConfig model = small_model();
  const HostTensors weights = random_weights(model, 6);
  TrainNetwork network(model, weights, quick(), make_cpu_device(1));
  const HostTensors before = network.state();
  Picture picture(3);
  const auto refused = [&](const char* what) {
    CHECK_THROWS_WITH(network.accumulate(picture.image(), {}),
                      Catch::Contains("picture") && Catch::Contains(what));
  };
  picture.objects[0].box[2] = std::numeric_limits<float>::quiet_NaN();
  refused("a box of");
  picture = Picture(3);
  picture.objects[0].class_id = 3;
  refused("class 3");
  picture = Picture(3);
  picture.objects.assign(300, {{10, 10, 40, 40}, 2});
  refused("300 boxes");
  picture = Picture(3);
  picture.bgr.pop_back();
  refused("bytes");
  CHECK_THROWS_WITH(network.update(0.1, 0), Catch::Contains("accumulate first"));
  HostTensors wrong = before;
  wrong.erase("fc6.weight");
  CHECK_THROWS_WITH(network.restore(wrong), Catch::Contains("fc6.weight"));
  CHECK(same(network.state(), before));

  TrainConfig frozen = quick();
  frozen.frozen = {"conv9"};
  CHECK_THROWS_WITH(TrainNetwork(model, weights, frozen, make_cpu_device(1)), Catch::Contains("conv9"));
}

TEST_CASE("weights that are not finite are refused by name", "[training]") {
  const ModelConfig model = small_model();
  const HostTensors good = random_weights(model, 7);
  TrainNetwork network(model, good, quick(), make_cpu_device(1));
  const HostTensors before = network.state();
  // A ReLU would hide each of them.
  for (const char* name : {"conv1.weight", "conv3.bias", "fc7.weight"}) {
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
      HostTensors weights = good;
      weights.at(name).data[5] = bad;
      CHECK_THROWS_WITH(TrainNetwork(model, weights, quick(), make_cpu_device(1)), Catch::Contains(name));
      HostTensors state = before;
      state.at(name).data[5] = bad;
      CHECK_THROWS_WITH(network.restore(state), Catch::Contains(name));
      CHECK(same(network.state(), before));
    }
  }
}

TEST_CASE("an overflow stops training with the image's and the tensor's name", "[training]") {
  const ModelConfig model = small_model();
  HostTensors weights = random_weights(model, 7);
  overflow_fc7(weights);
  TrainNetwork network(model, weights, quick(), make_cpu_device(1));
  const HostTensors before = network.state();
  CHECK_THROWS_WITH(network.accumulate(Picture(0).image(), {3, 0}),
                    Catch::Contains("picture") && Catch::Contains("step 3") && Catch::Contains("fc7"));
  CHECK(same(network.state(), before));
}

TEST_CASE("bf16 on a CPU trains nearly as fp32 does, and repeats itself", "[training]") {
  if (!cpu::multiplies_bf16()) {
    CHECK_THROWS_WITH(make_cpu_device(2, Precision::bf16), Catch::Contains("bf16"));
    WARN("SKIPPED: this processor does not multiply bf16");
    return;
  }
  const ModelConfig model = small_model();
  const HostTensors weights = random_weights(model, 8);
  TrainConfig config = quick();
  config.dropout = 0;
  TrainNetwork fp32(model, weights, config, make_cpu_device(2));
  TrainNetwork bf16(model, weights, config, make_cpu_device(2, Precision::bf16));
  TrainNetwork again(model, weights, config, make_cpu_device(2, Precision::bf16));
  const HostTensors before = fp32.state();
  const Picture picture(1);
  const TrainLosses a = fp32.accumulate(picture.image(), {}), b = bf16.accumulate(picture.image(), {});
  // bf16 keeps 8 bits; the RPN's losses see no choice that rounding could change.
  CHECK(b.rpn_cls == Approx(a.rpn_cls).epsilon(0.02));
  CHECK(b.rpn_bbox == Approx(a.rpn_bbox).epsilon(0.02));
  CHECK((a.rpn_cls != b.rpn_cls || a.rpn_bbox != b.rpn_bbox));
  CHECK(bf16.update(0.01, 0.9).gradient_norm == Approx(fp32.update(0.01, 0.9).gradient_norm).epsilon(0.1));
  again.accumulate(picture.image(), {});
  again.update(0.01, 0.9);
  CHECK(same(bf16.state(), again.state()));
  CHECK_FALSE(same(bf16.state(), fp32.state()));
}
