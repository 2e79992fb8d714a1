// Images for a Preprocess: random levels of any size, format and pitch in one tensor, and the records that
// say where in it they lie.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "ops/op_runner.h"

namespace frcnn::test {

struct SourceCase {
  std::int64_t height, width;
  double scale;
  PixelFormat format = PixelFormat::bgr;
  std::int64_t spare = 0;  // bytes behind each row
  bool upwards = false;    // the last row lies first
};

inline std::string text(const SourceCase& c) {
  return std::to_string(c.width) + "x" + std::to_string(c.height) + ", scale " + std::to_string(c.scale) +
         ", format " + std::to_string(static_cast<int>(c.format)) + ", " + std::to_string(c.spare) +
         " spare" + (c.upwards ? ", upwards" : "");
}

struct Sources {
  std::vector<SourceImage> records;
  Tensor pixels;
  std::int64_t height = 1, width = 1;  // that hold every image once it is scaled

  Tensor images() const {
    const auto* const bytes = reinterpret_cast<const std::uint8_t*>(records.data());
    return {Shape{static_cast<std::int64_t>(records.size()), sizeof(SourceImage)}, DType::u8,
            std::vector<std::uint8_t>(bytes, bytes + records.size() * sizeof(SourceImage))};
  }
  std::vector<Tensor> inputs() const { return {images(), pixels}; }
};

// One image behind the other; bgr without spare bytes makes N images of one size what [N,H,W,3] is.
inline Sources sources_of(const std::vector<SourceCase>& cases, unsigned salt) {
  Sources sources;
  std::int64_t at = 0;
  // Where a plane begins and how far its rows are apart.
  const auto plane = [&](std::int64_t rows, std::int64_t bytes, const SourceCase& c, std::uint64_t& first,
                         std::int64_t& step) {
    const std::int64_t pitch = bytes + c.spare;
    first = static_cast<std::uint64_t>(c.upwards ? at + (rows - 1) * pitch : at);
    step = c.upwards ? -pitch : pitch;
    at += rows * pitch;
  };
  for (const SourceCase& c : cases) {
    SourceImage record;
    record.format = c.format;
    record.height = static_cast<std::int32_t>(c.height);
    record.width = static_cast<std::int32_t>(c.width);
    record.inverse_scale = 1.0 / c.scale;
    record.out_height = static_cast<std::int32_t>(std::llrint(static_cast<double>(c.height) * c.scale));
    record.out_width = static_cast<std::int32_t>(std::llrint(static_cast<double>(c.width) * c.scale));
    const bool nv12 = c.format == PixelFormat::nv12;
    plane(c.height, nv12 ? c.width : 3 * c.width, c, record.data, record.row_bytes);
    if (nv12) plane((c.height + 1) / 2, (c.width + 1) / 2 * 2, c, record.chroma, record.chroma_row_bytes);
    sources.height = std::max<std::int64_t>(sources.height, record.out_height);
    sources.width = std::max<std::int64_t>(sources.width, record.out_width);
    sources.records.push_back(record);
  }
  sources.pixels = Tensor({Shape{at}, DType::u8});
  std::mt19937 random(base_seed() * 7919u + salt);
  for (std::uint8_t& level : sources.pixels.as<std::uint8_t>())
    level = static_cast<std::uint8_t>(random() >> 24);
  return sources;
}

}  // namespace frcnn::test
