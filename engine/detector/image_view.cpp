#include "detector/image_view.h"

#include <fmt/format.h>

#include <cstdlib>
#include <cstring>

#include "frcnn/error.h"

namespace frcnn {
namespace {

std::uint64_t address(const std::uint8_t* p) { return reinterpret_cast<std::uintptr_t>(p); }

// Both planes of a packed picture have rows of as many bytes: of an odd width, luma has one to spare.
std::size_t packed_row(const std::array<Plane, 2>& planes) {
  return planes[1].rows ? planes[1].bytes : planes[0].bytes;
}

void describe(const ImageView& image, SourceImage& source) {
  source.height = image.height;
  source.width = image.width;
  source.format = image.format;
}

}  // namespace

std::size_t Plane::extent() const {
  if (rows < 1) return 0;
  return static_cast<std::size_t>(std::abs(step)) * static_cast<std::size_t>(rows - 1) + bytes;
}

std::array<Plane, 2> planes_of(const ImageView& image) {
  const auto width = static_cast<std::size_t>(image.width);
  const auto step = [](std::ptrdiff_t given, std::size_t packed) {
    return given ? given : static_cast<std::ptrdiff_t>(packed);
  };
  if (image.format != PixelFormat::nv12)
    return {{{image.data, 3 * width, image.height, step(image.row_bytes, 3 * width)}, {}}};
  const std::size_t pairs = (width + 1) / 2 * 2;
  const Plane luma{image.data, width, image.height, step(image.row_bytes, width)};
  const std::ptrdiff_t below = image.chroma_row_bytes ? image.chroma_row_bytes : step(image.row_bytes, pairs);
  return {
      {luma,
       {image.chroma ? image.chroma : luma.data + luma.rows * luma.step, pairs, (luma.rows + 1) / 2, below}}};
}

std::string name_of_image(std::size_t n, std::size_t count) {
  return count > 1 ? fmt::format("image {}: ", n) : "";
}

void check_image(const ImageView& image, std::int64_t max_pixels, const std::string& name) {
  const auto fail = [&](const std::string& message) {
    throw Error(ErrorCode::invalid_argument, name + message);
  };
  if (!image.data || image.width < 1 || image.height < 1)
    fail(fmt::format("an image of {}x{} pixels has nothing in it", image.width, image.height));
  if (static_cast<std::int64_t>(image.width) * image.height > max_pixels)
    fail(fmt::format("an image of {}x{} pixels is larger than the {} pixels allowed", image.width,
                     image.height, max_pixels));
  for (const Plane& plane : planes_of(image))
    if (plane.rows > 1 && static_cast<std::size_t>(std::abs(plane.step)) < plane.bytes)
      fail(fmt::format("an image of {}x{} pixels has rows of {} bytes, which cannot lie {} bytes apart",
                       image.width, image.height, plane.bytes, plane.step));
}

void describe_in_place(const ImageView& image, SourceImage& source) {
  const std::array<Plane, 2> planes = planes_of(image);
  describe(image, source);
  source.data = address(planes[0].data);
  source.row_bytes = planes[0].step;
  source.chroma = address(planes[1].data);
  source.chroma_row_bytes = planes[1].step;
}

std::size_t packed_bytes(const ImageView& image) {
  const std::array<Plane, 2> planes = planes_of(image);
  return packed_row(planes) * static_cast<std::size_t>(planes[0].rows + planes[1].rows);
}

void pack(const ImageView& image, std::uint8_t* to) {
  const std::array<Plane, 2> planes = planes_of(image);
  const std::size_t row = packed_row(planes);
  for (const Plane& plane : planes) {
    if (plane.step == static_cast<std::ptrdiff_t>(row) && plane.bytes == row) {
      std::memcpy(to, plane.data, plane.extent());
      to += plane.extent();
      continue;
    }
    for (std::int64_t y = 0; y < plane.rows; ++y, to += row)
      std::memcpy(to, plane.data + y * plane.step, plane.bytes);
  }
}

void describe_packed(const ImageView& image, std::uint64_t at, SourceImage& source) {
  const std::array<Plane, 2> planes = planes_of(image);
  describe(image, source);
  source.data = at;
  source.row_bytes = source.chroma_row_bytes = static_cast<std::int64_t>(packed_row(planes));
  source.chroma = at + static_cast<std::uint64_t>(image.height) * packed_row(planes);
}

}  // namespace frcnn
