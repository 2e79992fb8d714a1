// RoI ops on a batch whose images own less of the map than there is, against each image on a map of its own.
#pragma once

#include "ops/op_runner.h"
#include "ops/random_rois.h"

namespace frcnn::test {

// The upper left part of one image of a map.
inline Tensor cut(const Tensor& map, std::int64_t image, std::int64_t rows, std::int64_t columns) {
  const Shape& s = map.spec.shape;
  Tensor part({Shape{1, rows, columns, s[3]}, DType::f32});
  auto to = part.as<float>().begin();
  for (std::int64_t y = 0; y < rows; ++y) {
    const auto from = map.as<float>().begin() + ((image * s[1] + y) * s[2]) * s[3];
    to = std::copy(from, from + columns * s[3], to);
  }
  return part;
}

// Cells in the padding hold more than any other, and RoIs reach into it.
template <class Op>
void check_own_maps(const Op& op) {
  constexpr std::int64_t height = 7, width = 9, channels = 5;
  const std::vector<std::int32_t> sizes{4, 9, -1, -1, 7, 5, -1, -1, 7, 9, -1, -1, 1, 1, -1, -1};
  const auto images = static_cast<std::int64_t>(sizes.size()) / 4;
  Tensor map = uniform({images, height, width, channels}, -1, 1, 11);
  for (std::int64_t n = 0; n < images; ++n)
    for (std::int64_t y = 0; y < height; ++y)
      for (std::int64_t x = 0; x < width; ++x)
        if (y >= sizes[static_cast<std::size_t>(n * 4)] || x >= sizes[static_cast<std::size_t>(n * 4 + 1)])
          for (std::int64_t c = 0; c < channels; ++c)
            map.as<float>()[static_cast<std::size_t>(((n * height + y) * width + x) * channels + c)] = 1000;
  const float right = 16.0f * width, bottom = 16.0f * height;
  const std::vector<float> boxes{0,          0,           right, bottom, 30, 20, 70,         60,
                                 right - 30, bottom - 30, right, bottom, 60, 10, right + 40, 40};
  const std::size_t each = boxes.size() / 4;
  std::vector<float> rois;
  for (std::int64_t n = 0; n < images; ++n)
    for (std::size_t i = 0; i < each; ++i) {
      rois.push_back(static_cast<float>(n));
      rois.insert(rois.end(), boxes.begin() + static_cast<std::ptrdiff_t>(i * 4),
                  boxes.begin() + static_cast<std::ptrdiff_t>(i * 4 + 4));
    }
  const auto count = static_cast<std::int64_t>(rois.size()) / 5;
  const Tensor together = run_op_any_threads(op, {map, f32({count, 5}, rois), i32({images, 4}, sizes)})[0];
  const std::size_t bytes = together.bytes.size() / static_cast<std::size_t>(images);
  for (std::int64_t n = 0; n < images; ++n) {
    const auto at = static_cast<std::size_t>(n);
    std::vector<float> own(rois.begin() + n * static_cast<std::ptrdiff_t>(each * 5),
                           rois.begin() + (n + 1) * static_cast<std::ptrdiff_t>(each * 5));
    for (std::size_t i = 0; i < own.size(); i += 5) own[i] = 0;
    const Tensor alone = run_op(op, {cut(map, n, sizes[at * 4], sizes[at * 4 + 1]),
                                     f32({static_cast<std::int64_t>(each), 5}, own)})[0];
    CAPTURE(n);
    REQUIRE(alone.bytes.size() == bytes);
    CHECK(std::memcmp(alone.bytes.data(), together.bytes.data() + at * bytes, bytes) == 0);
  }
  // An image that owns nothing, and sizes beyond the map.
  const std::vector<std::int32_t> odd{0, 9, 0, 0, 99, 99, 0, 0, -3, 2, 0, 0, 7, 9, 0, 0};
  const Tensor extreme = run_op_any_threads(op, {map, f32({count, 5}, rois), i32({images, 4}, odd)})[0],
               whole = run_op_any_threads(op, {map, f32({count, 5}, rois)})[0];
  for (const std::size_t n : {1u, 3u})
    CHECK(std::memcmp(extreme.bytes.data() + n * bytes, whole.bytes.data() + n * bytes, bytes) == 0);
  for (const std::size_t n : {0u, 2u})
    for (std::size_t i = 0; i < bytes / sizeof(float); ++i)
      CHECK(extreme.as<float>()[n * bytes / sizeof(float) + i] == 0);
}

}  // namespace frcnn::test
