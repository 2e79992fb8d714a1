#include "detector/run_values.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "graph/dtype.h"

namespace frcnn {
namespace {

bool is_real(DType dtype) { return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16; }

// As f32, of the n-th of `parts` equal parts.
std::vector<float> get_floats(const Executable& executable, const Value& value, std::size_t n = 0,
                              std::size_t parts = 1) {
  Shape shape = value.spec.shape;
  shape[0] /= static_cast<std::int64_t>(parts);
  const TensorSpec part{shape, value.spec.dtype};
  std::vector<float> data(static_cast<std::size_t>(shape.elements()));
  if (part.dtype == DType::f32) {
    executable.get(value.name, data.data(), part.bytes(), n * part.bytes());
    return data;
  }
  std::vector<std::byte> stored(part.bytes());
  executable.get(value.name, stored.data(), stored.size(), n * stored.size());
  to_f32({stored.data(), part.shape, part.dtype}, data.data());
  return data;
}

}  // namespace

std::int32_t get_int(const Executable& executable, std::string_view name, std::size_t n) {
  std::int32_t value = 0;
  executable.get(name, &value, sizeof value, n * sizeof value);
  return value;
}

bool has_published_floats(const Value& value) {
  return value.role != Role::weight && is_real(value.spec.dtype) && !is_internal(value);
}

NamedTensor published(const Executable& executable, const Value& value, std::size_t n, std::size_t batch) {
  Shape shape = value.spec.shape;
  shape[0] /= static_cast<std::int64_t>(batch);
  NamedTensor tensor{value.name, shape, get_floats(executable, value, n, batch)};
  if (value.count >= 0) {
    const std::int64_t rows = get_int(executable, executable.graph().value(value.count).name, n);
    if (shape.rank == 3) tensor.shape = Shape{shape[1], shape[2]};  // one image's detections
    tensor.shape[0] = rows;
    tensor.data.resize(static_cast<std::size_t>(tensor.shape.elements()));
  }
  if (tensor.shape.rank != 4) return tensor;
  const std::int64_t rows = tensor.shape[0], plane = shape[1] * shape[2], channels = shape[3];
  std::vector<float> nchw(tensor.data.size());
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t p = 0; p < plane; ++p)
      for (std::int64_t c = 0; c < channels; ++c)
        nchw[static_cast<std::size_t>((i * channels + c) * plane + p)] =
            tensor.data[static_cast<std::size_t>((i * plane + p) * channels + c)];
  tensor.shape = Shape{rows, channels, shape[1], shape[2]};
  tensor.data = std::move(nchw);
  return tensor;
}

std::vector<std::string> names_of(const Graph& graph, bool (*wanted)(const Value&)) {
  std::vector<std::string> names;
  for (const Value& value : graph.values())
    if (wanted(value)) names.push_back(value.name);
  return names;
}

std::string first_nonfinite(const Executable& executable, std::size_t batch) {
  for (const Value& value : executable.graph().values()) {
    if (value.role == Role::weight || !is_real(value.spec.dtype) || value.name.ends_with("@decoded") ||
        value.name.ends_with("@top"))
      continue;
    const std::vector<float> data = get_floats(executable, value);
    const auto bad = std::find_if(data.begin(), data.end(), [](float x) { return !std::isfinite(x); });
    if (bad == data.end()) continue;
    const auto at = static_cast<std::size_t>(bad - data.begin());
    return fmt::format(
        "{}{}: {} at element {} of {} (NHWC); this is the first value of the network that is not finite",
        name_of_image(at / (data.size() / batch), batch), value.name, *bad, at, to_string(value.spec.shape));
  }
  return std::string(nonfinite_result);
}

}  // namespace frcnn
