#include "model_io/model_file.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "frcnn/error.h"

namespace frcnn {
namespace {

constexpr std::size_t most_problems =
    200;  // more than any published model has tensors; bounds a hostile file's message

// Walks the network front to back over the tensors' shapes and collects everything that does not fit, so that
// one message shows all of it. An unknown size is -1 and fits anything.
class ModelChecker {
 public:
  ModelChecker(const ModelConfig& config, std::span<const StoredTensor> tensors) : config_(config) {
    for (const StoredTensor& tensor : tensors) {
      if (!by_name_.emplace(tensor.name, &tensor).second)
        problems_.push_back(printable(tensor.name) + " is there twice");
    }
  }

  std::vector<std::string> run() {
    std::int64_t channels = 3;
    for (const BackboneLayer& layer : config_.backbone)
      if (layer.kind == BackboneLayer::Kind::conv)
        channels = layer_shape(layer.name, {-1, channels, -1, -1})[0];
    if (config_.kind == ModelKind::detector) {
      rpn(channels);
      head(channels);
    } else if (has("fc6") || has("fc7")) {
      imagenet_head(channels);
    }
    for (const auto& [name, tensor] : by_name_)
      if (!used_.count(name))
        problems_.push_back(printable(name) + " is unknown, it has " + shape_string(tensor->shape));
    return std::move(problems_);
  }

 private:
  using Dims = std::vector<std::int64_t>;

  bool has(const std::string& layer) const {
    return by_name_.count(layer + ".weight") || by_name_.count(layer + ".bias");
  }

  static std::string pattern(const Dims& dims) {
    std::string text;
    for (const std::int64_t dim : dims) {
      if (!text.empty()) text += 'x';
      text += dim < 0 ? "?" : std::to_string(dim);
    }
    return text;
  }

  // The tensor's shape if it fits `expected` in every known place, otherwise all unknown.
  Dims tensor_shape(const std::string& name, const Dims& expected) {
    const Dims unknown(expected.size(), -1);
    const auto found = by_name_.find(name);
    if (found == by_name_.end()) {
      problems_.push_back(printable(name) + " is missing, it should have " + pattern(expected));
      return unknown;
    }
    used_.insert(name);
    const StoredTensor& tensor = *found->second;
    if (tensor.dtype != DType::f32 && tensor.dtype != DType::f16 && tensor.dtype != DType::bf16)
      problems_.push_back(printable(name) + ": a weight must be f32, f16 or bf16, it is " +
                          std::string(name_of(tensor.dtype)));
    bool fits = tensor.shape.size() == expected.size();
    for (std::size_t i = 0; fits && i < expected.size(); ++i)
      fits = tensor.shape[i] > 0 && (expected[i] < 0 || tensor.shape[i] == expected[i]);
    if (fits) return tensor.shape;
    problems_.push_back(printable(name) + ": expected " + pattern(expected) + ", the file has " +
                        shape_string(tensor.shape));
    return unknown;
  }

  // Weight and bias of one layer.
  Dims layer_shape(const std::string& layer, const Dims& expected) {
    const Dims weight = tensor_shape(layer + ".weight", expected);
    tensor_shape(layer + ".bias", {weight[0] < 0 ? expected[0] : weight[0]});
    return weight;
  }

  void rpn(std::int64_t channels) {
    const auto anchors =
        static_cast<std::int64_t>(config_.anchor_ratios.size() * config_.anchor_scales.size());
    const Dims window = layer_shape(config_.names.rpn_conv, {-1, channels, 3, 3});
    layer_shape("rpn_cls_score", {2 * anchors, window[0], 1, 1});
    layer_shape("rpn_bbox_pred", {4 * anchors, window[0], 1, 1});
  }

  void head(std::int64_t channels) {
    const std::int64_t pooled = channels < 0 ? -1 : channels * config_.pooled_h * config_.pooled_w;
    const Dims fc6 = layer_shape("fc6", {-1, pooled}), fc7 = layer_shape("fc7", {-1, fc6[0]});
    const auto classes = static_cast<std::int64_t>(config_.classes.size());
    layer_shape("cls_score", {classes, fc7[0]});
    const auto boxes = by_name_.find("bbox_pred.weight");
    const bool class_agnostic =
        boxes != by_name_.end() && !boxes->second->shape.empty() && boxes->second->shape.front() == 4;
    layer_shape("bbox_pred", {class_agnostic ? 4 : 4 * classes, fc7[0]});
  }

  // ImageNet's pooled size is not known to us, only that fc6 reads whole channels.
  void imagenet_head(std::int64_t channels) {
    const Dims fc6 = layer_shape("fc6", {-1, -1});
    layer_shape("fc7", {-1, fc6[0]});
    if (channels > 0 && fc6[1] > 0 && fc6[1] % channels != 0)
      problems_.push_back("'fc6.weight': " + std::to_string(fc6[1]) + " columns are not a multiple of the " +
                          std::to_string(channels) + " channels of the last convolution");
  }

  const ModelConfig& config_;
  std::map<std::string, const StoredTensor*> by_name_;
  std::set<std::string> used_;
  std::vector<std::string> problems_;
};

Shape to_shape(const std::vector<std::int64_t>& dims) {  // check_model has seen that they are four at most
  Shape shape;
  shape.rank = static_cast<int>(dims.size());
  std::copy(dims.begin(), dims.end(), shape.dim.begin());
  return shape;
}

// A weight that lies in the mapping, or a copy where a foreign writer put it off its type's alignment.
Weight to_weight(const std::shared_ptr<const SafetensorsFile>& file, const StoredTensor& tensor) {
  Weight weight;
  // The view's type is mutable because kernels write through it; nobody writes through a weight's.
  weight.view = {const_cast<void*>(tensor.data), to_shape(tensor.shape), tensor.dtype};
  if (reinterpret_cast<std::uintptr_t>(tensor.data) % size_of(tensor.dtype) == 0) {
    weight.owner = file;
    weight.release_pages = [file, &tensor] { file->release_pages(tensor); };
  } else {
    const auto copy = std::make_shared<std::vector<std::uint64_t>>((tensor.bytes + 7) / 8);
    std::memcpy(copy->data(), tensor.data, tensor.bytes);
    weight.view.data = copy->data();
    weight.owner = copy;
  }
  return weight;
}

}  // namespace

void check_model(const ModelConfig& config, std::span<const StoredTensor> tensors,
                 const std::string& source) {
  config_from_json(config_to_json(config), source);  // its own rules: ranges, names, classes
  const std::vector<std::string> problems = ModelChecker(config, tensors).run();
  if (problems.empty()) return;
  std::string message = source + ": the weights do not make this model";
  for (std::size_t i = 0; i < problems.size() && i < most_problems; ++i)
    message += (problems.size() == 1 ? ": " : "\n  ") + problems[i];
  if (problems.size() > most_problems)
    message += "\n  and " + std::to_string(problems.size() - most_problems) + " more";
  throw Error(ErrorCode::bad_model, message);
}

std::vector<StoredTensor> model_tensors(const SafetensorsFile& file) {
  std::vector<StoredTensor> tensors = file.tensors();
  if (file.metadata().count(training_metadata_key))
    std::erase_if(tensors, [](const StoredTensor& tensor) {
      return tensor.name.rfind(training_tensor_prefix, 0) == 0;
    });
  return tensors;
}

std::shared_ptr<const Model> load_model(const std::string& path) {
  const auto file = SafetensorsFile::open(path);
  const auto config_json = file->metadata().find(model_metadata_key);
  if (config_json == file->metadata().end())
    throw Error(ErrorCode::bad_model,
                path +
                    ": these are tensors without a model configuration; make a model of them with "
                    "`frcnn convert SOURCE MODEL`");
  ModelConfig config = config_from_json(config_json->second, path);
  const std::vector<StoredTensor> tensors = model_tensors(*file);
  check_model(config, tensors, path);
  std::map<std::string, Weight> weights;
  for (const StoredTensor& tensor : tensors)
    weights.emplace(tensor.name, to_weight(file, *file->find(tensor.name)));
  return std::make_shared<const Model>(std::move(config), std::move(weights), path);
}

void save_model(const std::string& path, const ModelConfig& config, std::span<const StoredTensor> tensors) {
  check_model(config, tensors, path);
  write_safetensors(path, tensors, {{"format", "frcnn"}, {model_metadata_key, config_to_json(config)}});
}

}  // namespace frcnn
