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

namespace {

// The rows [begin, begin + count) of a tensor.
std::vector<float> rows(const HostTensor& tensor, std::size_t begin, std::size_t count) {
  const std::size_t row = tensor.data.size() / static_cast<std::size_t>(tensor.shape[0]);
  const auto at = tensor.data.begin() + static_cast<std::ptrdiff_t>(begin * row);
  return {at, at + static_cast<std::ptrdiff_t>(count * row)};
}

struct Continued {  // a model of "__background__", "cat", "dog", "horse" and what another network takes of it
  scratch::Folder folder;
  std::shared_ptr<const Model> init;
  RunConfig run;
  HostTensors old;

  Continued(const std::vector<std::string>& classes = {"__background__", "cat", "dog", "horse"}) {
    ModelConfig small = small_models::config();
    small.classes = classes;
    const NewDetector made = [&] {
      save_model(folder / "base", small_models::config(), small_models::weights().tensors());
      const auto base = load_model(folder / "base");
      RunConfig fresh = preset("small-data", "init", &base->config);
      return new_detector(fresh.model, classes, base.get());
    }();
    small = made.config;
    RunConfig fresh = preset("small-data", "zf");
    fresh.train.frozen.clear();
    old = initial_weights(made, fresh.train, nullptr).tensors;
    std::vector<StoredTensor> tensors;
    for (const auto& [name, tensor] : old) {
      std::vector<std::int64_t> shape;
      for (int i = 0; i < tensor.shape.rank; ++i) shape.push_back(tensor.shape[i]);
      tensors.push_back({name, DType::f32, shape, tensor.data.data(), tensor.data.size() * sizeof(float)});
    }
    save_model(folder / "m", small, tensors);
    init = load_model(folder / "m");
    run = preset("small-data", "init", &init->config);
  }
  InitialWeights with(const std::vector<std::string>& classes, bool model = true) const {
    TrainConfig train = run.train;
    train.seed = 9;
    return initial_weights(new_detector(run.model, classes, init.get()), train, model ? init.get() : nullptr);
  }
};

}  // namespace

TEST_CASE("initial weights: rows of classes follow their names, not their places") {
  const Continued model;
  const HostTensors& old = model.old;
  const InitialWeights same = model.with({"__background__", "cat", "dog", "horse"});
  CHECK(equal(same.tensors.at("cls_score.weight"), old.at("cls_score.weight")));
  CHECK(origin(same, "cls_score").from == LayerOrigin::From::model);

  // As many classes, in another order and in other letters; one is new.
  const std::vector<std::string> classes{"__background__", "Horse", "cow", "cat"};
  const InitialWeights turned = model.with(classes), fresh = model.with(classes, false);
  const LayerOrigin cls = origin(turned, "cls_score");
  CHECK(cls.from == LayerOrigin::From::classes);
  CHECK(cls.known_classes == 2);
  CHECK(cls.fresh_classes == std::vector<std::string>{"cow"});
  CHECK(origin(turned, "bbox_pred").from == LayerOrigin::From::classes);
  CHECK(origin(turned, "fc7").from == LayerOrigin::From::model);
  for (const auto& [layer, each] : std::map<std::string, std::size_t>{{"cls_score", 1}, {"bbox_pred", 4}})
    for (const char* part : {".weight", ".bias"}) {
      const std::string name = layer + part;
      INFO(name);
      const HostTensor &now = turned.tensors.at(name), &was = old.at(name);
      CHECK(rows(now, 0, each) == rows(was, 0, each));
      CHECK(rows(now, each, each) == rows(was, 3 * each, each));
      CHECK(rows(now, 2 * each, each) == rows(fresh.tensors.at(name), 2 * each, each));
      CHECK(rows(now, 3 * each, each) == rows(was, each, each));
    }
  CHECK(rows(turned.tensors.at("cls_score.weight"), 2, 1) != rows(old.at("cls_score.weight"), 2, 1));

  // Fewer and more.
  CHECK(origin(model.with({"b", "dog"}), "bbox_pred").known_classes == 1);
  const InitialWeights more = model.with({"b", "a", "cat", "dog", "e", "horse"});
  CHECK(origin(more, "cls_score").fresh_classes == std::vector<std::string>{"a", "e"});
  CHECK(rows(more.tensors.at("bbox_pred.weight"), 20, 4) == rows(old.at("bbox_pred.weight"), 12, 4));
  // One written alike goes before one in other letters.
  CHECK(origin(model.with({"b", "DOG", "dog", "cat"}), "cls_score").fresh_classes ==
        std::vector<std::string>{"DOG"});
}

TEST_CASE("initial weights: classes that the model does not know, and a model that names none") {
  const Continued model;
  const std::vector<std::string> others{"__background__", "RBC", "WBC", "Platelets"};
  const InitialWeights strangers = model.with(others);
  for (const char* layer : {"cls_score", "bbox_pred"}) {
    CHECK(origin(strangers, layer).from == LayerOrigin::From::strangers);
    const std::string name = std::string(layer) + ".weight";
    CHECK(equal(strangers.tensors.at(name), model.with(others, false).tensors.at(name)));
  }
  const Continued unnamed({"__background__", "class1", "class2", "class3"});
  const InitialWeights taken = unnamed.with(others);
  CHECK(origin(taken, "cls_score").from == LayerOrigin::From::model);
  CHECK(equal(taken.tensors.at("cls_score.weight"), unnamed.old.at("cls_score.weight")));
  // Frozen for ever is a layer that is the model's in all rows only.
  TrainConfig frozen = model.run.train;
  frozen.frozen = {"cls_score"};
  const auto start = [&](const std::vector<std::string>& classes) {
    initial_weights(new_detector(model.run.model, classes, model.init.get()), frozen, model.init.get());
  };
  CHECK_NOTHROW(start({"b", "dog", "cat"}));
  scratch::check_error(
      [&] {
        start({"b", "dog", "cow"});
      },
      ErrorCode::invalid_argument, {"frozen: cls_score"});
}
