#include "training/training_units.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "frcnn/error.h"

namespace frcnn {
namespace {

enum class Direction { to_training, to_published };

HostTensor& tensor(HostTensors& weights, const std::string& name) {
  const auto found = weights.find(name);
  if (found == weights.end())
    throw Error(ErrorCode::bad_model, fmt::format("{}: there is no such weight", name));
  return found->second;
}

void multiply(HostTensor& t, double factor) {
  for (float& x : t.data) x = static_cast<float>(x * factor);
}

// What the input's offset adds to each output of the first layer, in units of the weights given.
std::vector<double> offset_sums(const HostTensor& weight, const UnitsConfig& units) {
  const std::int64_t area = weight.shape[2] * weight.shape[3];
  std::vector<double> sums(static_cast<std::size_t>(weight.shape[0]), 0.0);
  for (std::size_t i = 0; i < weight.data.size(); ++i) {
    const auto at = static_cast<std::int64_t>(i);
    const std::int64_t o = at / (weight.shape[1] * area), c = at / area % weight.shape[1];
    sums[static_cast<std::size_t>(o)] += weight.data[i] * units.input_offset.at(static_cast<std::size_t>(c));
  }
  return sums;
}

// Published maps are `hidden` times the trained ones up to the last LRN; the convolution behind it brings
// them back.
void convert_backbone(const ModelConfig& model, const UnitsConfig& units, Direction direction,
                      HostTensors& weights) {
  const auto last_lrn =
      std::find_if(model.backbone.rbegin(), model.backbone.rend(), [](const BackboneLayer& l) {
        return l.kind == BackboneLayer::Kind::lrn;
      }).base();  // one behind it, or the beginning
  bool first = true, leave = last_lrn != model.backbone.begin();
  for (auto layer = model.backbone.begin(); layer != model.backbone.end(); ++layer) {
    if (layer->kind != BackboneLayer::Kind::conv) continue;
    HostTensor &w = tensor(weights, layer->name + ".weight"), &b = tensor(weights, layer->name + ".bias");
    const bool hidden = layer < last_lrn;
    const double weight_factor = (first              ? 1.0 / units.input_scale * (hidden ? units.hidden : 1.0)
                                  : !hidden && leave ? 1.0 / units.hidden
                                                     : 1.0);
    const double bias_factor = hidden ? units.hidden : 1.0;
    if (!hidden) leave = false;
    const bool publish = direction == Direction::to_published;
    if (publish) multiply(w, weight_factor);
    const std::vector<double> sums = first ? offset_sums(w, units) : std::vector<double>(b.data.size(), 0.0);
    for (std::size_t o = 0; o < b.data.size(); ++o)
      b.data[o] = static_cast<float>(publish ? b.data[o] * bias_factor - sums[o]
                                             : (b.data[o] + sums[o]) / bias_factor);
    if (!publish) multiply(w, 1.0 / weight_factor);
    first = false;
  }
}

// bbox_pred answers in standard deviations of the targets while it is trained.
void convert_bbox(const RoiTargetConfig& roi, Direction direction, HostTensors& weights) {
  HostTensor &w = tensor(weights, "bbox_pred.weight"), &b = tensor(weights, "bbox_pred.bias");
  const auto columns = static_cast<std::size_t>(w.shape[1]);
  for (std::size_t row = 0; row < b.data.size(); ++row) {
    const double std = roi.stds[row % 4], mean = roi.means[row % 4];
    const bool publish = direction == Direction::to_published;
    for (std::size_t i = row * columns; i < (row + 1) * columns; ++i)
      w.data[i] = static_cast<float>(publish ? w.data[i] * std : w.data[i] / std);
    b.data[row] = static_cast<float>(publish ? b.data[row] * std + mean : (b.data[row] - mean) / std);
  }
}

// At test time fc6's and fc7's results are multiplied by the model's factor; what that differs from the
// factor which the training's dropout asks for is taken into the layers behind them.
void convert_dropout(const ModelConfig& model, const TrainConfig& config, Direction direction,
                     HostTensors& weights) {
  const double wanted = config.dropout_scales_in_training ? 1.0 : 1.0 - config.dropout;
  const double factor = direction == Direction::to_published ? wanted / model.dropout_test_scale
                                                             : model.dropout_test_scale / wanted;
  for (const char* layer : {"fc7", "cls_score", "bbox_pred"})
    multiply(tensor(weights, std::string(layer) + ".weight"), factor);
}

void convert(const ModelConfig& model, const TrainConfig& config, Direction direction, HostTensors& weights) {
  convert_backbone(model, config.units, direction, weights);
  convert_bbox(config.roi, direction, weights);
  convert_dropout(model, config, direction, weights);
}

}  // namespace

TrainingModel in_training_units(const ModelConfig& published, const TrainConfig& config) {
  const UnitsConfig& units = config.units;
  TrainingModel model{published, 0};
  bool any_lrn = false;
  for (BackboneLayer& layer : model.config.backbone) {
    if (layer.kind != BackboneLayer::Kind::lrn) continue;
    any_lrn = true;
    layer.lrn.alpha = static_cast<float>(static_cast<double>(layer.lrn.alpha) * units.hidden * units.hidden);
  }
  if (units.hidden != 1 && !any_lrn)
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("hidden units of {}: {} has no LRN that would feel them", units.hidden, published.name));
  if (units.input_offset != std::array<double, 3>{})
    std::swap(model.input_pad, model.config.backbone.front().pad);
  return model;
}

void to_training_units(const ModelConfig& published, const TrainConfig& config, HostTensors& weights) {
  convert(published, config, Direction::to_training, weights);
}

void to_published_units(const ModelConfig& published, const TrainConfig& config, HostTensors& weights) {
  convert(published, config, Direction::to_published, weights);
}

}  // namespace frcnn
