#include "model_io/convert/export.h"

#include <fmt/format.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "frcnn/error.h"
#include "graph/dtype.h"
#include "model_io/atomic_file.h"
#include "model_io/convert/export_net.h"
#include "model_io/model_file.h"

namespace frcnn {
namespace {

constexpr std::size_t block = 1 << 16;  // elements widened at a time
constexpr std::uint64_t max_bytes = std::numeric_limits<std::int32_t>::max();

// ---- the wire format of what is too large for messages in memory: layers with their weights ----

constexpr std::uint32_t net_layer = 100, layer_blobs = 7, blob_data = 5, blob_shape = 7, shape_dim = 1;

void put_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

void put_header(std::string& out, std::uint32_t field, std::uint64_t bytes) {
  put_varint(out, std::uint64_t{field} << 3 | 2);
  put_varint(out, bytes);
}

// Everything of a blob in front of its numbers.
std::string blob_head(const StoredTensor& tensor, std::uint64_t data_bytes) {
  std::string dims, shape, head, all;
  for (const std::int64_t d : tensor.shape) put_varint(dims, static_cast<std::uint64_t>(d));
  put_header(shape, shape_dim, dims.size());
  shape += dims;
  put_header(head, blob_shape, shape.size());
  head += shape;
  put_header(head, blob_data, data_bytes);
  put_header(all, layer_blobs, head.size() + data_bytes);
  return all + head;
}

void append_as_f32(const StoredTensor& tensor, const Append& append) {
  if (tensor.dtype == DType::f32) return append(tensor.data, tensor.bytes);
  const std::size_t count = tensor.bytes / size_of(tensor.dtype);
  std::vector<float> values(std::min(block, count));
  for (std::size_t at = 0; at < count; at += block) {
    const std::size_t n = std::min(block, count - at);
    to_f32(static_cast<const std::byte*>(tensor.data) + at * size_of(tensor.dtype), tensor.dtype, n,
           values.data());
    append(values.data(), n * sizeof(float));
  }
}

// A layer as bytes: `head`, then each blob's head and numbers.
struct LayerBytes {
  std::string head;
  struct Blob {
    std::string head;
    const StoredTensor* tensor;
  };
  std::vector<Blob> blobs;
  std::uint64_t size = 0;
};

LayerBytes layer_bytes(const frcnn_caffe::Layer& layer, const SafetensorsFile& file) {
  LayerBytes bytes;
  const std::string message = layer.SerializeAsString();
  std::uint64_t size = message.size();
  for (const char* part : {".weight", ".bias"}) {
    const StoredTensor* tensor = file.find(layer.name() + part);
    if (!tensor) continue;
    const std::uint64_t data = tensor->bytes / size_of(tensor->dtype) * sizeof(float);
    bytes.blobs.push_back({blob_head(*tensor, data), tensor});
    size += bytes.blobs.back().head.size() + data;
  }
  put_header(bytes.head, net_layer, size);
  size += bytes.head.size();
  bytes.head += message;
  bytes.size = size;
  return bytes;
}

struct NetBytes {
  std::string head;
  std::vector<LayerBytes> layers;
  std::uint64_t size = 0;
};

NetBytes net_bytes(const frcnn_caffe::Net& net, const SafetensorsFile& file) {
  frcnn_caffe::Net frame = net;
  frame.clear_layer();
  NetBytes bytes;
  bytes.head = frame.SerializeAsString();
  bytes.size = bytes.head.size();
  for (const auto& layer : net.layer()) {
    bytes.layers.push_back(layer_bytes(layer, file));
    bytes.size += bytes.layers.back().size;
  }
  if (bytes.size > max_bytes)
    throw Error(
        ErrorCode::unsupported,
        fmt::format("{}: {} bytes as a Caffe model, which is one protocol buffer and holds at most {}",
                    file.path(), bytes.size, max_bytes));
  return bytes;
}

void append_net(const NetBytes& bytes, const Append& append) {
  append(bytes.head.data(), bytes.head.size());
  for (const LayerBytes& layer : bytes.layers) {
    append(layer.head.data(), layer.head.size());
    for (const auto& blob : layer.blobs) {
      append(blob.head.data(), blob.head.size());
      append_as_f32(*blob.tensor, append);
    }
  }
}

// ---- conventions ----

// What converting the files without a word more would set otherwise.
std::vector<std::string> left_out(const ModelConfig& config) {
  // The network itself says these.
  static const std::set<std::string> held{
      "format_version", "kind",          "name",          "backbone",      "names",
      "feat_stride",    "anchor_ratios", "anchor_scales", "roi_op",        "roi_sampling_ratio",
      "roi_aligned",    "pooled_h",      "pooled_w",      "spatial_scale", "dropout_test_scale",
      "classes"};
  using Json = nlohmann::ordered_json;
  const Json ours = Json::parse(config_to_json(config)), usual = Json::parse(config_to_json(ModelConfig{}));
  std::vector<std::string> out;
  for (const auto& [key, value] : ours.items()) {
    if (held.count(key) || value == usual[key]) continue;
    std::string text = value.is_string() ? value.get<std::string>() : value.dump();
    if (value.is_array()) text = text.substr(1, text.size() - 2);
    out.push_back(key + "=" + text);
  }
  if (config.classes.size() > 1) {
    std::string names;
    for (std::size_t i = 1; i < config.classes.size(); ++i) names += (i > 1 ? "," : "") + config.classes[i];
    out.push_back("classes=" + names);
  }
  return out;
}

std::vector<std::string> remarks(const ModelConfig& config, CaffeForm form) {
  std::vector<std::string> out;
  const bool detector = config.kind == ModelKind::detector;
  if (detector && form == CaffeForm::py_faster_rcnn && config.anchor_ratios != ModelConfig{}.anchor_ratios)
    out.push_back("the release's ProposalLayer takes no ratios from its param_str: it would use 0.5, 1, 2");
  const auto floors = [](const BackboneLayer& layer) {
    return layer.kind == BackboneLayer::Kind::max_pool && layer.pool.rounding == Rounding::floor;
  };
  if (form == CaffeForm::py_faster_rcnn &&
      std::any_of(config.backbone.begin(), config.backbone.end(), floors))
    out.push_back(
        "pooling rounds down (round_mode: FLOOR), which Caffe knows only since 2018: the release rounds up");
  return out;
}

std::string comment(const std::string& text) {
  std::string line = "# ";
  for (const char c : text) line += c == '\n' || c == '\r' ? ' ' : c;
  return line + "\n";
}

std::string prototxt_text(const frcnn_caffe::Net& net, const ExportOptions& options,
                          const ExportResult& result) {
  frcnn_caffe::Net shown = net;
  // fc6 and fc7 of a backbone have no place in its network; they are in the binary file for what starts from
  // it.
  auto& layers = *shown.mutable_layer();
  layers.erase(std::remove_if(layers.begin(), layers.end(),
                              [](const frcnn_caffe::Layer& layer) { return layer.bottom_size() == 0; }),
               layers.end());
  std::string body;
  if (!google::protobuf::TextFormat::PrintToString(shown, &body))
    throw Error(ErrorCode::out_of_memory, options.destination + ": the prototxt cannot be printed");
  std::string text =
      comment("The network of " + std::filesystem::path(options.destination).filename().string());
  if (!result.left_out.empty()) {
    text += comment("What a Caffe network cannot say:");
    for (const std::string& line : result.left_out) text += comment("  " + line);
  }
  for (const std::string& line : result.remarks) text += comment(line);
  return text + body;
}

}  // namespace

std::string prototxt_beside(const std::string& caffemodel) {
  const std::string ending = ".caffemodel";
  const bool has = caffemodel.size() > ending.size() && caffemodel.ends_with(ending);
  return (has ? caffemodel.substr(0, caffemodel.size() - ending.size()) : caffemodel) + ".prototxt";
}

ExportResult export_caffe(const ExportOptions& options) {
  const auto model = load_model(options.model);
  const auto file = SafetensorsFile::open(options.model);
  ExportResult result;
  result.config = model->config;
  result.prototxt = prototxt_beside(options.destination);
  for (const std::string& written : {options.destination, result.prototxt})
    keep_apart(options.model, written);
  TensorShapes shapes;
  for (const StoredTensor& tensor : file->tensors()) shapes[tensor.name] = tensor.shape;
  // A checkpoint's file holds more: what training needs to go on.
  for (const auto& [name, weight] : model->weights.all()) result.parameters += weight.view.shape.elements();
  const frcnn_caffe::Net net = caffe_net_of(model->config, shapes, options.form, options.model);
  result.layers = static_cast<std::size_t>(net.layer_size());
  result.left_out = left_out(model->config);
  result.remarks = remarks(model->config, options.form);
  const std::string text = prototxt_text(net, options, result);
  const NetBytes bytes = net_bytes(net, *file);
  write_atomically(result.prototxt, text);
  write_atomically(options.destination, [&](const Append& append) { append_net(bytes, append); });
  result.bytes = bytes.size;
  return result;
}

}  // namespace frcnn
