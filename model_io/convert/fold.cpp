#include "model_io/convert/fold.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstring>
#include <memory>
#include <vector>

#include "frcnn/error.h"
#include "graph/dtype.h"

namespace frcnn {
namespace {

std::vector<double> values_of(const SourceTensor& tensor) {
  const std::size_t count = tensor.bytes / size_of(tensor.dtype);
  std::vector<double> values(count);
  if (count == 0) return values;
  if (tensor.dtype == DType::f64) {
    std::memcpy(values.data(), tensor.data, tensor.bytes);
  } else {
    std::vector<float> narrow(count);
    to_f32(tensor.data, tensor.dtype, count, narrow.data());
    std::copy(narrow.begin(), narrow.end(), values.begin());
  }
  return values;
}

void replace(SourceTensor& tensor, const std::vector<double>& values) {
  const auto data = std::make_shared<std::vector<float>>(values.begin(), values.end());
  tensor.dtype = DType::f32;
  tensor.data = data->data();
  tensor.bytes = data->size() * sizeof(float);
  tensor.owner = data;
}

}  // namespace

void fold_input(SourceTensor& weight, const TorchvisionInput& input) {
  if (weight.shape.size() != 4 || weight.shape[1] != 3)
    throw Error(ErrorCode::bad_model,
                fmt::format("{}: {}: {}; a first convolution reads three channels, ?x3x?x?", weight.file,
                            weight.name, fmt::join(weight.shape, "x")));
  const std::vector<double> rgb = values_of(weight);
  std::vector<double> bgr(rgb.size());
  const auto plane = static_cast<std::size_t>(weight.shape[2] * weight.shape[3]);
  for (std::size_t i = 0; i < rgb.size(); ++i) {
    const std::size_t channel = i / plane % 3;
    const std::size_t to = i + (2 - channel) * plane - channel * plane;
    bgr[to] = rgb[i] / (255 * input.std[channel]);
  }
  replace(weight, bgr);
}

void scale_rows(SourceTensor& tensor, std::span<const double> factors) {
  std::vector<double> values = values_of(tensor);
  if (tensor.shape.empty() || tensor.shape[0] < 1) return;
  const std::size_t row = values.size() / static_cast<std::size_t>(tensor.shape[0]);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] *= factors[i / row % factors.size()];
  replace(tensor, values);
}

}  // namespace frcnn
