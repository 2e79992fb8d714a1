#include "model_io/convert/weights_out.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "frcnn/error.h"
#include "graph/dtype.h"

namespace frcnn {
namespace {

constexpr std::size_t block = 1 << 14;  // elements converted at a time

std::string index_string(const std::vector<std::int64_t>& shape, std::size_t flat) {
  std::string text;
  for (std::size_t d = shape.size(); d-- > 0;) {
    const auto size = static_cast<std::size_t>(std::max<std::int64_t>(shape[d], 1));
    text = std::to_string(flat % size) + (text.empty() ? "" : ",") + text;
    flat /= size;
  }
  return "[" + text + "]";
}

// As stored: a number too large for f32 is finite in f64.
bool finite_in_source(const SourceTensor& tensor, std::size_t i, float narrow) {
  if (tensor.dtype != DType::f64) return std::isfinite(narrow);
  double wide;
  std::memcpy(&wide, static_cast<const std::byte*>(tensor.data) + i * sizeof wide, sizeof wide);
  return std::isfinite(wide);
}

}  // namespace

std::vector<std::string> network_order(const ModelConfig& config) {
  std::vector<std::string> layers;
  for (const BackboneLayer& layer : config.backbone)
    if (layer.kind == BackboneLayer::Kind::conv) layers.push_back(layer.name);
  if (config.kind == ModelKind::detector)
    layers.insert(layers.end(), {config.names.rpn_conv, "rpn_cls_score", "rpn_bbox_pred"});
  layers.insert(layers.end(), {"fc6", "fc7"});
  if (config.kind == ModelKind::detector) layers.insert(layers.end(), {"cls_score", "bbox_pred"});
  std::vector<std::string> names;
  for (const std::string& layer : layers) {
    names.push_back(layer + ".weight");
    names.push_back(layer + ".bias");
  }
  return names;
}

ReadyTensor make_ready(const SourceTensor& tensor, DType dtype, bool allow_nonfinite) {
  const std::size_t count = tensor.bytes / size_of(tensor.dtype);
  ReadyTensor ready;
  ready.stored = {tensor.name, dtype, tensor.shape, tensor.data, tensor.bytes};
  ready.owner = tensor.owner;
  std::shared_ptr<std::vector<std::byte>> copy;
  if (dtype != tensor.dtype) {
    copy = std::make_shared<std::vector<std::byte>>(count * size_of(dtype));
    ready.stored.data = copy->data();
    ready.stored.bytes = copy->size();
    ready.owner = copy;
  }
  std::vector<float> values(std::min(block, count)), rounded(values.size());
  for (std::size_t at = 0; at < count; at += block) {
    const std::span<float> part(values.data(), std::min(block, count - at));
    to_f32(static_cast<const std::byte*>(tensor.data) + at * size_of(tensor.dtype), tensor.dtype, part.size(),
           part.data());
    std::span<const float> result = part;
    if (copy) {
      std::byte* const dst = copy->data() + at * size_of(dtype);
      from_f32(part.data(), part.size(), dtype, dst);
      to_f32(dst, dtype, part.size(), rounded.data());
      result = {rounded.data(), part.size()};
    }
    for (std::size_t i = 0; i < result.size(); ++i) {
      if (std::isfinite(result[i])) continue;
      const std::string where =
          fmt::format("{}: {}{}", tensor.file, tensor.name, index_string(tensor.shape, at + i));
      if (finite_in_source(tensor, at + i, part[i]))
        throw Error(ErrorCode::numeric, fmt::format("{} is too large for {}", where, name_of(dtype)));
      if (!allow_nonfinite)
        throw Error(ErrorCode::numeric,
                    fmt::format("{} is {}; --allow-nonfinite converts it all the same", where, part[i]));
    }
  }
  return ready;
}

}  // namespace frcnn
