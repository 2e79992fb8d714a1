// One level of a protocol buffer's wire format: which field lies where. Files are walked with it so that a
// damaged length, or more fields than anybody needs, is found before anything is allocated for it.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "frcnn/error.h"

namespace frcnn {

enum class WireType : std::uint8_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

struct WireField {
  std::uint32_t number = 0;
  WireType type = WireType::varint;
  std::span<const std::byte> bytes;  // type bytes
  std::size_t offset = 0;            // of the content, in the file
};

class WireReader {
 public:
  // `base` is the offset of bytes[0] in the file called `source`, for messages.
  WireReader(std::span<const std::byte> bytes, std::size_t base, const std::string& source)
      : bytes_(bytes), base_(base), source_(source) {}

  // False at the end. Throws Error(bad_file).
  bool next(WireField& field) {
    if (at_ == bytes_.size()) return false;
    const std::size_t start = at_;
    const std::uint64_t key = varint(start);
    field.number = static_cast<std::uint32_t>(key >> 3);
    if (key >> 32 || field.number == 0) fail(start, "no field of a protocol buffer");
    field.type = static_cast<WireType>(key & 7);
    std::uint64_t length = 0;
    switch (field.type) {
      case WireType::varint:
        varint(start);
        break;
      case WireType::fixed64:
        length = 8;
        break;
      case WireType::fixed32:
        length = 4;
        break;
      case WireType::bytes:
        length = varint(start);
        break;
      default:
        fail(start, "no field of a protocol buffer");
    }
    field.offset = base_ + at_;
    if (length > bytes_.size() - at_)
      fail(start,
           fmt::format("field {} claims {} bytes, {} are left", field.number, length, bytes_.size() - at_));
    field.bytes = bytes_.subspan(at_, static_cast<std::size_t>(length));
    at_ += static_cast<std::size_t>(length);
    return true;
  }

 private:
  std::uint64_t varint(std::size_t start) {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      if (at_ == bytes_.size()) fail(start, "the file ends within a field");
      const auto byte = static_cast<std::uint64_t>(bytes_[at_++]);
      value |= shift == 63 ? (byte & 1) << 63 : (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    fail(start, "a number of more than ten bytes");
  }
  [[noreturn]] void fail(std::size_t at, const std::string& what) const {
    throw Error(ErrorCode::bad_file, fmt::format("{}: byte {}: {}", source_, base_ + at, what));
  }

  std::span<const std::byte> bytes_;
  std::size_t at_ = 0, base_;
  const std::string& source_;
};

}  // namespace frcnn
