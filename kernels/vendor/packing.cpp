#include "vendor/packing.h"

#include <fmt/format.h>

#include "graph/dtype.h"

namespace frcnn::vendor {
namespace {

WeightPacking rows_packing(std::int64_t outputs, std::int64_t taps, std::int64_t channels,
                           const cuda::PublishedLayout& published, DType stored, std::int64_t cells) {
  cuda::PackedWeights packed;
  packed.published = published;
  packed.outputs = packed.rows = static_cast<int>(outputs);
  packed.taps = static_cast<int>(taps);
  packed.channels = packed.tap_columns = static_cast<int>(channels);
  packed.columns = static_cast<int>(taps * channels);
  return cuda::weight_packing(1, packed, stored,
                              fmt::format("rows:{}:{}:{}:cells{}", name_of(stored), channels, taps, cells));
}

}  // namespace

WeightPacking filter_packing(const Shape& weight, DType stored) {
  cuda::PublishedLayout published;
  published.output.stride = weight.row();
  published.channel.stride = weight[2] * weight[3];
  return rows_packing(weight[0], weight[2] * weight[3], weight[1], published, stored, 1);
}

WeightPacking matrix_packing(const Shape& weight, const Shape& source, DType stored) {
  const std::int64_t channels = source.rank == 4 ? source[3] : source.row(),
                     cells = source.rank == 4 ? source[1] * source[2] : 1;
  cuda::PublishedLayout published;
  published.output.stride = source.row();
  published.channel = {static_cast<int>(channels), cells, 1};
  return rows_packing(weight[0], 1, source.row(), published, stored, cells);
}

WeightPacking bias_packing(std::int64_t outputs, DType stored) {
  WeightPacking packing;
  packing.input = 2;
  packing.layout = fmt::format("published:{}", name_of(stored));
  packing.bytes = static_cast<std::size_t>(outputs) * size_of(stored);
  packing.pack = [outputs, stored](const TensorView& published, void* packed) {
    from_f32(published.as<const float>(), outputs, stored, packed);
  };
  return packing;
}

const char* arithmetic_name(DType stored, Precision precision) {
  if (stored == DType::f16) return "fp16";
  if (stored == DType::bf16) return "bf16";
  return precision == Precision::tf32 ? "tf32" : "fp32";
}

}  // namespace frcnn::vendor
