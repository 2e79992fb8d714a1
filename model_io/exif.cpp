#include "model_io/exif.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <string_view>

namespace frcnn {
namespace {

using Bytes = std::span<const std::uint8_t>;

bool starts_with(Bytes bytes, std::string_view prefix) {
  return bytes.size() >= prefix.size() && std::memcmp(bytes.data(), prefix.data(), prefix.size()) == 0;
}

std::uint32_t big_endian(Bytes bytes, std::size_t at, int count) {
  std::uint32_t value = 0;
  for (int i = 0; i < count; ++i) value = value << 8 | bytes[at + static_cast<std::size_t>(i)];
  return value;
}

std::uint32_t little_endian(Bytes bytes, std::size_t at, int count) {
  std::uint32_t value = 0;
  for (int i = count - 1; i >= 0; --i) value = value << 8 | bytes[at + static_cast<std::size_t>(i)];
  return value;
}

// A TIFF block: byte order, 42, offset of the first directory; a directory is a count and 12-byte entries. Every
// offset is checked against the block before it is followed; only the first directory is read, so no loop can form.
int tiff_orientation(Bytes tiff) {
  const bool little = starts_with(tiff, "II");
  if (!little && !starts_with(tiff, "MM")) return 1;
  const auto number = [&](std::size_t at, int count) {
    return little ? little_endian(tiff, at, count) : big_endian(tiff, at, count);
  };
  if (tiff.size() < 8 || number(2, 2) != 42) return 1;
  const std::size_t directory = number(4, 4);
  if (directory > tiff.size() || tiff.size() - directory < 2) return 1;
  const std::size_t stated = number(directory, 2);
  const std::size_t entries = std::min(stated, (tiff.size() - directory - 2) / 12);
  for (std::size_t i = 0; i < entries; ++i) {
    const std::size_t entry = directory + 2 + 12 * i;
    if (number(entry, 2) != 0x0112) continue;
    const auto value = static_cast<int>(number(entry + 8, 2));   // a SHORT lies in the entry itself
    return value >= 1 && value <= 8 ? value : 1;
  }
  return 1;
}

int jpeg_orientation(Bytes file) {
  std::size_t at = 2;
  while (at + 4 <= file.size()) {
    if (file[at] != 0xff) return 1;
    const std::uint8_t marker = file[at + 1];
    if (marker == 0xff) {                                        // fill byte
      ++at;
      continue;
    }
    if (marker == 0xda || marker == 0xd9) return 1;              // scan data or end: segments before it only
    const std::size_t length = big_endian(file, at + 2, 2);      // counts its own two bytes
    if (length < 2 || at + 2 + length > file.size()) return 1;
    const Bytes body = file.subspan(at + 4, length - 2);
    constexpr std::string_view exif("Exif\0\0", 6);
    if (marker == 0xe1 && starts_with(body, exif)) return tiff_orientation(body.subspan(exif.size()));
    at += 2 + length;
  }
  return 1;
}

int png_orientation(Bytes file) {
  std::size_t at = 8;
  while (at + 12 <= file.size()) {
    const std::size_t length = big_endian(file, at, 4);
    if (length > file.size() - at - 12) return 1;
    const Bytes type = file.subspan(at + 4, 4);
    if (starts_with(type, "eXIf")) return tiff_orientation(file.subspan(at + 8, length));
    if (starts_with(type, "IEND")) return 1;
    at += 12 + length;
  }
  return 1;
}

}  // namespace

int exif_orientation(Bytes file) {
  constexpr std::array<std::uint8_t, 2> jpeg{0xff, 0xd8};
  constexpr std::array<std::uint8_t, 8> png{0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  if (file.size() >= jpeg.size() && std::equal(jpeg.begin(), jpeg.end(), file.begin())) return jpeg_orientation(file);
  if (file.size() >= png.size() && std::equal(png.begin(), png.end(), file.begin())) return png_orientation(file);
  return 1;
}

}  // namespace frcnn
