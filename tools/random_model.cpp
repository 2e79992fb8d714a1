#include "random_model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <cstdint>
#include <map>
#include <utility>

#include "frcnn/error.h"
#include "model_io/class_list.h"
#include "model_io/convert/implied.h"
#include "model_io/convert/weights_out.h"

namespace frcnn {
namespace {

struct Convolution {
  const char* name;
  std::int64_t outputs, kernel;
};

struct Architecture {
  std::vector<Convolution> backbone;
  std::int64_t rpn, pooled, hidden;  // channels of the RPN's window, cells of a RoI's side, fc6 and fc7
};

Architecture architecture_of(const std::string& name) {
  if (name == "vgg16")
    return {{{"conv1_1", 64, 3},
             {"conv1_2", 64, 3},
             {"conv2_1", 128, 3},
             {"conv2_2", 128, 3},
             {"conv3_1", 256, 3},
             {"conv3_2", 256, 3},
             {"conv3_3", 256, 3},
             {"conv4_1", 512, 3},
             {"conv4_2", 512, 3},
             {"conv4_3", 512, 3},
             {"conv5_1", 512, 3},
             {"conv5_2", 512, 3},
             {"conv5_3", 512, 3}},
            512,
            7,
            4096};
  if (name == "zf")
    return {{{"conv1", 96, 7}, {"conv2", 256, 5}, {"conv3", 384, 3}, {"conv4", 384, 3}, {"conv5", 256, 3}},
            256,
            6,
            4096};
  throw Error(ErrorCode::invalid_argument, fmt::format("architecture {}: expected one of {}", name,
                                                       fmt::join(random_architectures, ", ")));
}

// splitmix64: one multiplication chain a number, and the same numbers everywhere.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  float uniform() {  // in [-1, 1)
    state_ += 0x9E3779B97F4A7C15u;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return static_cast<float>((z ^ (z >> 31)) >> 40) * 0x1p-23f - 1.0f;
  }

 private:
  std::uint64_t state_;
};

class WeightMaker {
 public:
  // He's variance for what is followed by a ReLU: 2 / inputs.
  void hidden(const std::string& layer, const Shape& shape, double input_size = 1) {
    add(layer, shape, std::sqrt(2.0 / static_cast<double>(shape.row())) / input_size);
  }
  void add(const std::string& layer, const Shape& shape, double deviation) {
    const auto size =
        static_cast<float>(deviation * std::sqrt(3.0));  // a uniform number's deviation is 1 / sqrt(3)
    put(layer + ".weight", shape, size);
    put(layer + ".bias", {shape[0]}, 0.0f);
  }
  std::map<std::string, Weight> take() { return std::move(weights_); }

 private:
  void put(const std::string& name, const Shape& shape, float size) {
    auto values = std::make_shared<std::vector<float>>(static_cast<std::size_t>(shape.elements()));
    if (size > 0)
      for (float& value : *values) value = size * random_.uniform();
    weights_[name] = {{values->data(), shape, DType::f32}, values, {}};
  }

  Random random_{1};
  std::map<std::string, Weight> weights_;
};

constexpr double pixel_size = 64;  // about the deviation of a picture's pixels from their mean

}  // namespace

std::shared_ptr<const Model> random_model(const std::string& architecture) {
  const Architecture a = architecture_of(architecture);
  const std::vector<std::string> classes = voc_classes();
  const auto outputs = static_cast<std::int64_t>(classes.size());
  ModelConfig config;
  const auto anchors = static_cast<std::int64_t>(config.anchor_ratios.size() * config.anchor_scales.size());

  WeightMaker make;
  TensorShapes shapes;
  std::int64_t channels = 3;
  for (const Convolution& layer : a.backbone) {
    shapes[std::string(layer.name) + ".weight"] = {layer.outputs, channels, layer.kernel, layer.kernel};
    make.hidden(layer.name, {layer.outputs, channels, layer.kernel, layer.kernel},
                channels == 3 ? pixel_size : 1);
    channels = layer.outputs;
  }
  make.hidden(config.names.rpn_conv, {a.rpn, channels, 3, 3});
  make.add("rpn_cls_score", {2 * anchors, a.rpn, 1, 1}, 0.01);
  make.add("rpn_bbox_pred", {4 * anchors, a.rpn, 1, 1}, 0.01);
  make.hidden("fc6", {a.hidden, channels * a.pooled * a.pooled});
  make.hidden("fc7", {a.hidden, a.hidden});
  make.add("cls_score", {outputs, a.hidden}, 0.01);
  make.add("bbox_pred", {4 * outputs, a.hidden}, 0.001);

  const std::optional<ImpliedTopology> topology = topology_of(shapes);
  if (!topology)
    throw Error(ErrorCode::bad_model, architecture + ": its layers' shapes are no published network's");
  config.name = topology->name + " with random weights";
  config.backbone = topology->backbone;
  config.names.roi_pool = topology->roi_pool;
  config.dropout_test_scale = topology->dropout_test_scale;
  config.classes = classes;
  config.pooled_h = config.pooled_w = static_cast<int>(a.pooled);
  return std::make_shared<const Model>(std::move(config), make.take(), architecture + " (random weights)");
}

std::vector<StoredTensor> stored_tensors(const Model& model) {
  std::vector<StoredTensor> tensors;
  for (const std::string& name : network_order(model.config)) {
    if (!model.weights.has(name)) continue;  // fc6 and fc7 of a backbone
    const TensorView& view = model.weights.at(name).view;
    const std::vector<std::int64_t> shape(view.shape.dim.begin(), view.shape.dim.begin() + view.shape.rank);
    tensors.push_back({name, view.dtype, shape, view.data, view.bytes()});
  }
  return tensors;
}

}  // namespace frcnn
