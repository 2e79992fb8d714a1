// Pictures in memory that is not ours, and where their pixels lie.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "graph/ops.h"

namespace frcnn {

// host: memory of the process. device: of the GPU that the detector computes on, as cudaMalloc gives it; read
// where it is, by the detector's own stream: the pixels must be complete when detect() is called, and may be
// overwritten when it has returned.
enum class PixelMemory : std::uint8_t { host, device };

// An 8-bit picture in the caller's memory. bgr and rgb are interleaved; nv12 is what video decoders deliver,
// BT.601 limited range (docs/numerics.md states the conversion): `data` is the luma plane, `chroma` the plane
// of U, V pairs, one for 2x2 pixels, ceil(height/2) rows of ceil(width/2) pairs. Rows may be any distance
// apart, backwards too.
struct ImageView {
  const std::uint8_t* data = nullptr;  // the top left pixel
  int width = 0, height = 0;
  std::ptrdiff_t row_bytes = 0;  // from a row to the one below it; 0: packed
  PixelFormat format = PixelFormat::bgr;
  const std::uint8_t* chroma = nullptr;  // nv12; null: where the luma's rows end, data + height * row_bytes
  std::ptrdiff_t chroma_row_bytes = 0;   // nv12; 0: as row_bytes, or packed if that is 0
  PixelMemory memory = PixelMemory::host;
};

// One plane of a picture: `rows` rows of `bytes` bytes that are `step` apart.
struct Plane {
  const std::uint8_t* data = nullptr;
  std::size_t bytes = 0;
  std::int64_t rows = 0;
  std::ptrdiff_t step = 0;

  const std::uint8_t* lowest() const { return step < 0 && rows > 1 ? data + (rows - 1) * step : data; }
  std::size_t extent() const;  // in bytes from lowest() to the end of the last one; 0 without rows
};

// The second has no rows where there is one.
std::array<Plane, 2> planes_of(const ImageView& image);

// What messages about image `n` of `count` begin with: "image 2: ", or nothing where it is the only one.
std::string name_of_image(std::size_t n, std::size_t count);

// Throws Error(invalid_argument) for an empty or too large image, and for rows that overlap. `name` begins
// the message.
void check_image(const ImageView& image, std::int64_t max_pixels, const std::string& name);

// Sets the fields of a record that say where the pixels lie and what they are, as they are in memory.
void describe_in_place(const ImageView& image, SourceImage& source);

// The same of packed_bytes() bytes that begin at address `at`, where rows follow one another.
std::size_t packed_bytes(const ImageView& image);
void pack(const ImageView& image, std::uint8_t* to);
void describe_packed(const ImageView& image, std::uint64_t at, SourceImage& source);

}  // namespace frcnn
