#include "training/initial_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <span>

#include "frcnn/error.h"
#include "graph/dtype.h"
#include "training/random_numbers.h"
#include "training/training_units.h"
#include "training/voc_dataset.h"

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

bool unnamed(const std::vector<std::string>& classes) {  // as a conversion without --classes calls them
  for (std::size_t i = 1; i < classes.size(); ++i)
    if (classes[i] != fmt::format("class{}", i)) return false;
  return true;
}

// For each class the model's that it continues. Nothing where there is no question: the same names in the
// same order, or a model whose rows have no names.
using ClassRows = std::vector<std::optional<std::size_t>>;
std::optional<ClassRows> match_classes(const std::vector<std::string>& wanted, const Model* init) {
  if (!init || wanted.size() < 2 || init->config.classes.size() < 2 || init->config.classes == wanted ||
      unnamed(init->config.classes))
    return std::nullopt;
  const std::span<const std::string> known(init->config.classes), own_names(wanted);
  const ClassNames names(known.subspan(1)), own(own_names.subspan(1));
  ClassRows rows{0};
  for (std::size_t i = 1; i < wanted.size(); ++i) {
    std::optional<std::size_t> row = names.find(wanted[i]);
    // One in other letters is left to the class that is written like it.
    if (row && wanted[*own.find(known[*row + 1]) + 1] != wanted[i]) row.reset();
    rows.push_back(row ? std::optional(*row + 1) : std::nullopt);
  }
  return rows;
}

// Takes the rows of `rows` into a layer that has as many rows for each class.
class RowsByClass {
 public:
  RowsByClass(const Model& init, const std::vector<std::string>& classes, const ClassRows& rows)
      : init_(init), classes_(classes), rows_(rows) {}

  // Whether both layers consist of rows of classes and differ in nothing else.
  bool fits(const LayerShape& layer) const {
    const std::int64_t each = rows_per_class(layer.name);
    if (each == 0 || !init_.weights.has(layer.name + ".weight") || !init_.weights.has(layer.name + ".bias"))
      return false;
    const Shape shape = init_.weights.at(layer.name + ".weight").view.shape;
    const auto count = static_cast<std::int64_t>(init_.config.classes.size());
    return shape.rank == layer.weight.rank && shape[0] == each * count && shape.row() == layer.weight.row() &&
           layer.weight[0] == each * static_cast<std::int64_t>(rows_.size()) &&
           init_.weights.at(layer.name + ".bias").view.shape == Shape{shape[0]};
  }

  void describe(LayerOrigin& origin) const {
    for (std::size_t i = 1; i < rows_.size(); ++i)
      if (rows_[i])
        ++origin.known_classes;
      else
        origin.fresh_classes.push_back(classes_[i]);
    if (origin.known_classes > 0)
      origin.from = LayerOrigin::From::classes;
    else if (origin.from == LayerOrigin::From::model)  // a misfit stays one
      origin.from = LayerOrigin::From::strangers;
  }

  // `tensor` is the layer's fresh one, in published units.
  void take(const std::string& name, HostTensor& tensor) const {
    const std::vector<float> values = values_of(init_, name);
    const auto row = static_cast<std::ptrdiff_t>(tensor.data.size() / rows_.size());  // of all its rows
    for (std::size_t i = 0; i < rows_.size(); ++i)
      if (rows_[i])
        std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(*rows_[i]) * row, row,
                    tensor.data.begin() + static_cast<std::ptrdiff_t>(i) * row);
  }

 private:
  static std::int64_t rows_per_class(const std::string& layer) {
    return layer == "cls_score" ? 1 : layer == "bbox_pred" ? 4 : 0;
  }

  const Model& init_;
  const std::vector<std::string>& classes_;
  const ClassRows& rows_;
};

void check_frozen(const InitialWeights& initial, const TrainConfig& config) {
  for (const std::string& name : config.frozen) {
    const auto layer = std::find_if(
        initial.origins.begin(), initial.origins.end(),
        [&](const LayerOrigin& o) { return o.name == name && o.from != LayerOrigin::From::unused; });
    if (layer == initial.origins.end())
      throw Error(ErrorCode::invalid_argument, fmt::format("frozen: the network has no layer {}", name));
    const bool taken = layer->from == LayerOrigin::From::model ||
                       (layer->from == LayerOrigin::From::classes && layer->fresh_classes.empty());
    if (!taken)
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
  const std::optional<ClassRows> rows = match_classes(detector.config.classes, init);
  std::optional<RowsByClass> by_class;
  if (rows) by_class.emplace(*init, detector.config.classes, *rows);
  for (std::size_t i = 0; i < detector.layers.size(); ++i) {
    const LayerShape& layer = detector.layers[i];
    const std::string weight = layer.name + ".weight", bias = layer.name + ".bias";
    known.insert(layer.name);
    LayerOrigin origin{layer.name, LayerOrigin::From::fresh, layer.weight, {}};
    origin.from = compare(layer, init, origin.model_shape);
    if (by_class && by_class->fits(layer)) by_class->describe(origin);
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
  const bool some_rows = std::any_of(initial.origins.begin(), initial.origins.end(), [](const auto& origin) {
    return origin.from == LayerOrigin::From::classes;
  });
  if (init && taken.empty() && !some_rows)
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
  for (const LayerOrigin& origin : initial.origins)
    if (origin.from == LayerOrigin::From::classes)
      for (const char* part : {".weight", ".bias"})
        by_class->take(origin.name + part, initial.tensors.at(origin.name + part));
  return initial;
}

}  // namespace frcnn
