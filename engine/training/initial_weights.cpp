#include "training/initial_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "frcnn/error.h"
#include "graph/dtype.h"
#include "training/random_numbers.h"
#include "training/training_units.h"

namespace frcnn {
namespace {

// Standard deviation of a fresh weight in training units (SPEC section 12).
double fresh_std(const LayerShape& layer, const TrainConfig& config) {
  if (layer.name == "rpn_cls_score" || layer.name == "rpn_bbox_pred") return config.rpn_filler_std;
  if (layer.name == "cls_score") return config.cls_filler_std;
  if (layer.name == "bbox_pred") return config.bbox_filler_std;
  return config.filler == Filler::he ? std::sqrt(2.0 / static_cast<double>(layer.weight.row())) : 0.01;
}

std::vector<float> values_of(const Model& init, const std::string& name) {
  const TensorView& view = init.weights.at(name).view;
  std::vector<float> values(static_cast<std::size_t>(view.shape.elements()));
  to_f32(view, values.data());
  const auto bad = std::find_if(values.begin(), values.end(), [](float x) { return !std::isfinite(x); });
  if (bad != values.end())
    throw Error(ErrorCode::bad_model, fmt::format("{}: {}: {} at element {}; training cannot start from it",
                                                  init.weights.source(), name, *bad, bad - values.begin()));
  return values;
}

Shape bias_shape(const LayerShape& layer) { return Shape{layer.weight[0]}; }

// The model's tensors of a layer, or nothing where they are missing or shaped otherwise.
LayerOrigin::From compare(const LayerShape& layer, const Model* init, Shape& model_shape) {
  if (!init || !init->weights.has(layer.name + ".weight") || !init->weights.has(layer.name + ".bias"))
    return LayerOrigin::From::fresh;
  model_shape = init->weights.at(layer.name + ".weight").view.shape;
  const bool fits =
      model_shape == layer.weight && init->weights.at(layer.name + ".bias").view.shape == bias_shape(layer);
  return fits ? LayerOrigin::From::model : LayerOrigin::From::misfit;
}

void check_frozen(const InitialWeights& initial, const TrainConfig& config) {
  for (const std::string& name : config.frozen) {
    const auto layer = std::find_if(
        initial.origins.begin(), initial.origins.end(),
        [&](const LayerOrigin& o) { return o.name == name && o.from != LayerOrigin::From::unused; });
    if (layer == initial.origins.end())
      throw Error(ErrorCode::invalid_argument, fmt::format("frozen: the network has no layer {}", name));
    if (layer->from != LayerOrigin::From::model)
      throw Error(
          ErrorCode::invalid_argument,
          fmt::format(
              "frozen: {} would keep its random weights for ever: give a model that has it with --init, or "
              "train it (--set frozen=)",
              name));
  }
}

}  // namespace

InitialWeights initial_weights(const NewDetector& detector, const TrainConfig& config, const Model* init) {
  InitialWeights initial;
  HostTensors taken;
  std::set<std::string> known;
  for (std::size_t i = 0; i < detector.layers.size(); ++i) {
    const LayerShape& layer = detector.layers[i];
    const std::string weight = layer.name + ".weight", bias = layer.name + ".bias";
    known.insert(layer.name);
    LayerOrigin origin{layer.name, LayerOrigin::From::fresh, layer.weight, {}};
    origin.from = compare(layer, init, origin.model_shape);
    // The conversion of units below wants every layer; what is taken stands in it as zeros.
    HostTensor fresh{layer.weight, std::vector<float>(static_cast<std::size_t>(layer.weight.elements()))};
    if (origin.from == LayerOrigin::From::model) {
      taken.emplace(weight, HostTensor{layer.weight, values_of(*init, weight)});
      taken.emplace(bias, HostTensor{bias_shape(layer), values_of(*init, bias)});
    } else {
      fill_gaussian(fresh.data, fresh_std(layer, config), config.seed, static_cast<std::uint32_t>(i));
    }
    initial.tensors.emplace(weight, std::move(fresh));
    initial.tensors.emplace(
        bias, HostTensor{bias_shape(layer), std::vector<float>(static_cast<std::size_t>(layer.weight[0]))});
    initial.origins.push_back(std::move(origin));
  }
  if (init && taken.empty())
    throw Error(ErrorCode::bad_model, fmt::format("{}: none of its layers fits the network {}",
                                                  init->weights.source(), detector.config.name));
  if (init)
    for (const auto& [name, weight] : init->weights.all())
      if (const std::size_t dot = name.rfind('.');
          name.substr(dot) == ".weight" && !known.count(name.substr(0, dot)))
        initial.origins.push_back({name.substr(0, dot), LayerOrigin::From::unused, {}, weight.view.shape});
  check_frozen(initial, config);
  to_published_units(detector.config, config, initial.tensors);
  for (auto& [name, tensor] : taken) initial.tensors[name] = std::move(tensor);
  return initial;
}

}  // namespace frcnn
