// PNG files of every kind, written by hand: bit depths and colour types that no writer of ours makes.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace frcnn::png {

enum Colour : std::uint8_t { grey = 0, rgb = 2, grey_alpha = 4, rgba = 6 };

inline std::string big_endian(std::uint32_t v) {
  return {static_cast<char>(v >> 24), static_cast<char>(v >> 16), static_cast<char>(v >> 8),
          static_cast<char>(v)};
}

inline std::uint32_t crc(const std::string& bytes) {
  std::uint32_t c = 0xffffffffu;
  for (const char b : bytes) {
    c ^= static_cast<std::uint8_t>(b);
    for (int k = 0; k < 8; ++k) c = (c >> 1) ^ (c & 1 ? 0xedb88320u : 0);
  }
  return ~c;
}

inline std::string chunk(const std::string& type, const std::string& body) {
  return big_endian(static_cast<std::uint32_t>(body.size())) + type + body + big_endian(crc(type + body));
}

// zlib's stored blocks: no compression needed.
inline std::string zlib(const std::string& raw) {
  std::string out("\x78\x01", 2);
  std::uint32_t a = 1, b = 0;
  for (const char c : raw) {
    a = (a + static_cast<std::uint8_t>(c)) % 65521;
    b = (b + a) % 65521;
  }
  for (std::size_t at = 0;; at += 65535) {
    const std::size_t n = raw.size() - at < 65535 ? raw.size() - at : 65535;
    const bool last = at + n == raw.size();
    out += static_cast<char>(last);
    for (const std::size_t v : {n, ~n}) out += {static_cast<char>(v), static_cast<char>(v >> 8)};
    out += raw.substr(at, n);
    if (last) break;
  }
  return out + big_endian(b << 16 | a);
}

inline std::string header(std::uint32_t width, std::uint32_t height, int depth, Colour colour) {
  const std::string rest{static_cast<char>(depth), static_cast<char>(colour), 0, 0, 0};
  return std::string("\x89PNG\r\n\x1a\n", 8) + chunk("IHDR", big_endian(width) + big_endian(height) + rest);
}

// A picture with enough structure that a network answers differently in different places.
inline std::string picture(std::uint32_t width, std::uint32_t height, int depth = 8, Colour colour = rgb) {
  const int channels = std::array{1, 0, 3, 0, 2, 0, 4}[colour];
  std::string raw;
  std::uint32_t noise = 12345;
  for (std::uint32_t y = 0; y < height; ++y) {
    raw += '\0';  // filter: none
    for (std::uint32_t x = 0; x < width; ++x) {
      for (int c = 0; c < channels; ++c) {
        noise = noise * 1664525u + 1013904223u;
        const std::uint32_t square = (x / 16 + y / 12 + static_cast<std::uint32_t>(c)) % 3 * 90;
        raw += static_cast<char>(square + (noise >> 26));
        if (depth == 16) raw += '\x55';
      }
    }
  }
  return header(width, height, depth, colour) + chunk("IDAT", zlib(raw)) + chunk("IEND", "");
}

}  // namespace frcnn::png
