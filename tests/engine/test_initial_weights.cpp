// What training starts from.
#include <cmath>
#include <cstring>

#include "catch.h"
#include "io/scratch.h"
#include "io/small_models.h"
#include "model_io/model_file.h"
#include "training/initial_weights.h"
#include "training/presets.h"
#include "training/training_units.h"

using namespace frcnn;

namespace {

const std::vector<std::string> three{"b", "RBC", "WBC", "Platelets"};

double deviation(const HostTensor& tensor) {
  double square = 0;
  for (const float x : tensor.data) square += double{x} * x;
  return std::sqrt(square / static_cast<double>(tensor.data.size()));
}

LayerOrigin origin(const InitialWeights& initial, const std::string& name) {
  for (const LayerOrigin& one : initial.origins)
    if (one.name == name) return one;
  FAIL("no layer " + name);
  return {};
}

bool equal(const HostTensor& a, const HostTensor& b) {
  return a.shape == b.shape && std::memcmp(a.data.data(), b.data.data(), a.data.size() * sizeof(float)) == 0;
}

}  // namespace

TEST_CASE("initial weights: fresh ones have the recipe's deviations in training units") {
  RunConfig run = preset("bccd");
  run.train.units.input_offset = {3, -4, 5};
  const NewDetector detector = new_detector(run.model, three, nullptr);
  InitialWeights initial = initial_weights(detector, run.train, nullptr);
  CHECK(initial.tensors.size() == 24);
  // Published, the first layer is in pixels and its bias takes the offset; all of it is undone exactly but
  // for rounding.
  CHECK(deviation(initial.tensors.at("conv1.weight")) ==
        Approx(std::sqrt(2.0 / 147) * 64 / 16).epsilon(0.02));
  CHECK(deviation(initial.tensors.at("bbox_pred.weight")) < 0.001);
  to_training_units(detector.config, run.train, initial.tensors);
  for (const LayerShape& layer : detector.layers) {
    INFO(layer.name);
    double wanted = std::sqrt(2.0 / static_cast<double>(layer.weight.row()));
    if (layer.name == "rpn_cls_score" || layer.name == "rpn_bbox_pred" || layer.name == "cls_score")
      wanted = 0.01;
    if (layer.name == "bbox_pred") wanted = 0.001;
    const auto n = static_cast<double>(layer.weight.elements());
    CHECK(deviation(initial.tensors.at(layer.name + ".weight")) ==
          Approx(wanted).epsilon(5 / std::sqrt(2 * n)));
    for (const float b : initial.tensors.at(layer.name + ".bias").data) CHECK(std::abs(b) < 1e-5);
    CHECK(origin(initial, layer.name).from == LayerOrigin::From::fresh);
  }
  RunConfig gaussian = run;
  gaussian.train.filler = Filler::gaussian;
  gaussian.train.units = {};
  gaussian.train.dropout_scales_in_training = false;
  const InitialWeights plain = initial_weights(detector, gaussian.train, nullptr);
  CHECK(deviation(plain.tensors.at("fc6.weight")) == Approx(0.01).epsilon(0.01));
  CHECK(plain.tensors.at("conv1.bias").data[0] == 0);
}

TEST_CASE("initial weights: what fits is taken bit for bit, the rest is named and does not depend on it") {
  const scratch::Folder folder;
  const ModelConfig small = small_models::config();  // 3 classes with the background
  const small_models::WeightSet weights = small_models::weights();
  save_model(folder / "m", small, weights.tensors());
  const auto init = load_model(folder / "m");
  RunConfig run = preset("small-data", "init", &init->config);
  const NewDetector detector = new_detector(run.model, three, init.get());
  const InitialWeights initial = initial_weights(detector, run.train, init.get());
  for (const char* layer : {"conv1", "conv2", "rpn_conv1", "rpn_cls_score", "fc6", "fc7"}) {
    INFO(layer);
    CHECK(origin(initial, layer).from == LayerOrigin::From::model);
    const HostTensor& taken = initial.tensors.at(std::string(layer) + ".weight");
    CHECK(std::memcmp(taken.data.data(), init->weights.at(std::string(layer) + ".weight").view.data,
                      taken.data.size() * 4) == 0);
  }
  for (const char* layer : {"cls_score", "bbox_pred"}) {
    const LayerOrigin one = origin(initial, layer);
    CHECK(one.from == LayerOrigin::From::misfit);
    CHECK(one.shape[0] == one.model_shape[0] / 3 * 4);
  }
  // The same network without a model: its fresh layers are those of before.
  ArchitectureConfig alone = run.model;
  const InitialWeights fresh = initial_weights(detector, run.train, nullptr);
  CHECK(alone.arch == "init");
  for (const char* name : {"cls_score.weight", "bbox_pred.weight", "bbox_pred.bias"})
    CHECK(equal(fresh.tensors.at(name), initial.tensors.at(name)));
  TrainConfig other = run.train;
  other.seed = 4;
  CHECK_FALSE(equal(initial_weights(detector, other, nullptr).tensors.at("fc6.weight"),
                    fresh.tensors.at("fc6.weight")));
}

TEST_CASE("initial weights: unused layers are named; nonsense is refused") {
  const scratch::Folder folder;
  save_model(folder / "m", small_models::config(), small_models::weights().tensors());
  const auto init = load_model(folder / "m");
  RunConfig run = preset("py-faster-rcnn", "zf");
  run.model.conv_widths = {4, 4, 4, 4, 4};
  run.model.fc6_width = run.model.fc7_width = 8;
  const NewDetector zf = new_detector(run.model, three, init.get());
  const InitialWeights initial = initial_weights(zf, run.train, init.get());
  CHECK(origin(initial, "conv1").from == LayerOrigin::From::model);  // 4x3x7x7 in both
  CHECK(origin(initial, "conv2").from == LayerOrigin::From::misfit);
  CHECK(origin(initial, "conv3").from == LayerOrigin::From::fresh);
  CHECK(origin(initial, "rpn_conv1").from == LayerOrigin::From::unused);

  TrainConfig frozen = run.train;
  frozen.frozen = {"conv1"};
  CHECK_NOTHROW(initial_weights(zf, frozen, init.get()));
  frozen.frozen = {"conv2"};
  scratch::check_error([&] { initial_weights(zf, frozen, init.get()); }, ErrorCode::invalid_argument,
                       {"frozen: conv2", "--init"});
  frozen.frozen = {"conv9"};
  scratch::check_error([&] { initial_weights(zf, frozen, init.get()); }, ErrorCode::invalid_argument,
                       {"no layer conv9"});

  run = preset("py-faster-rcnn");
  run.model.conv_widths = {2, 2, 2, 2, 2};
  run.model.fc6_width = run.model.fc7_width = 5;
  run.model.rpn_width = 2;
  const NewDetector vgg = new_detector(run.model, three, init.get());
  scratch::check_error([&] { initial_weights(vgg, run.train, init.get()); }, ErrorCode::bad_model,
                       {"none of its layers fits", "VGG-16"});

  small_models::WeightSet broken = small_models::weights();
  static_cast<float*>(const_cast<void*>(broken.tensors()[4].data))[3] = std::nanf("");
  save_model(folder / "nan", small_models::config(), broken.tensors());
  const auto bad = load_model(folder / "nan");
  const NewDetector same = new_detector(preset("bccd", "init", &bad->config).model, three, bad.get());
  scratch::check_error([&] { initial_weights(same, run.train, bad.get()); }, ErrorCode::bad_model,
                       {"rpn_conv1.weight", "element 3"});
}
