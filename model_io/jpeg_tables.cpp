#include "model_io/jpeg_tables.h"

#include <cstddef>

namespace frcnn {
namespace {

constexpr std::uint8_t prefix = 0xff, soi = 0xd8, eoi = 0xd9, sos = 0xda, dht = 0xc4;

bool is_restart(std::uint8_t marker) { return (marker & 0xf8) == 0xd0; }

// The position after the next marker at or behind `at`, and the marker; 0 at the end of the file. Fill bytes and what a
// sloppy writer leaves between segments are stepped over.
struct Found { std::size_t after = 0; std::uint8_t marker = 0; };

Found next_marker(std::span<const std::uint8_t> file, std::size_t at, bool in_scan) {
  while (at + 1 < file.size()) {
    if (file[at] != prefix || file[at + 1] == prefix) {
      ++at;
      continue;
    }
    const std::uint8_t marker = file[at + 1];
    at += 2;
    if (in_scan && (marker == 0 || is_restart(marker))) continue;   // a stuffed byte, or a restart: still the scan
    return {at, marker};
  }
  return {};
}

// The tables of one segment of `length` bytes from `at` on. The decoder trusts the counts more than the length: a last table
// may reach beyond its segment, and beyond the file, where it reads zeros.
bool huffman_tables_fit(std::span<const std::uint8_t> file, std::size_t at, std::size_t length) {
  for (std::size_t used = 0; used < length;) {
    std::size_t codes = 0;
    for (std::size_t i = at + used + 1; i <= at + used + 16 && i < file.size(); ++i) codes += file[i];
    if (codes > 256) return false;
    used += 17 + codes;
  }
  return true;
}

}  // namespace

bool jpeg_tables_fit(std::span<const std::uint8_t> file) {
  Found found = next_marker(file, 0, false);
  if (found.marker != soi || file[0] != prefix) return true;
  bool in_scan = false;
  while ((found = next_marker(file, found.after, in_scan)).after != 0 && found.marker != eoi) {
    in_scan = false;
    if (found.marker == soi || found.marker <= 1 || is_restart(found.marker)) continue;   // these have no length
    if (found.after + 2 > file.size()) return true;
    const std::size_t length = static_cast<std::size_t>(file[found.after]) << 8 | file[found.after + 1];
    if (length < 2) return true;                                 // no decoder goes on from here
    const std::size_t end = found.after + length;
    if (found.marker == dht && !huffman_tables_fit(file, found.after + 2, length - 2)) return false;
    if (end > file.size()) return true;
    found.after = end;
    in_scan = found.marker == sos;
  }
  return true;
}

}  // namespace frcnn
