// Any bytes as a caffemodel: an Error or a net whose blobs lie in memory, and facts of it or an Error. The
// mutator knows the wire format: it changes fields and puts the messages around them together again with
// right lengths, so that damage reaches what lies deeper.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "frcnn/error.h"
#include "io/caffe_wire.h"
#include "model_io/convert/caffe_net.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace {

enum Kind : std::uint8_t { varint = 0, eight_bytes = 1, sized = 2, four_bytes = 5 };

struct Field;
using Message = std::vector<Field>;

struct Field {
  std::uint32_t number = 1;
  std::uint8_t kind = varint;
  std::uint64_t value = 0;  // of a varint
  std::string bytes;        // of the others, unless they are a message
  std::optional<Message> message;
  std::optional<std::uint64_t> claimed;  // a length in place of the right one
};

std::optional<std::uint64_t> take_varint(std::string_view bytes, std::size_t& at) {
  std::uint64_t value = 0;
  for (int shift = 0; shift < 64 && at < bytes.size(); shift += 7) {
    const auto byte = static_cast<unsigned char>(bytes[at++]);
    value |= std::uint64_t{byte & 0x7Fu} << shift;
    if (byte < 0x80) return value;
  }
  return std::nullopt;
}

// Bytes that happen to look like a message are taken for one; nothing when they do not.
std::optional<Message> parse(std::string_view bytes, int depth) {
  Message message;
  for (std::size_t at = 0; at < bytes.size();) {
    const auto key = take_varint(bytes, at);
    if (!key || *key >> 3 == 0 || *key >> 3 > 1000) return std::nullopt;
    Field field;
    field.number = static_cast<std::uint32_t>(*key >> 3);
    field.kind = static_cast<std::uint8_t>(*key & 7);
    std::uint64_t size = field.kind == eight_bytes ? 8 : 4;
    if (field.kind == varint || field.kind == sized) {
      const auto value = take_varint(bytes, at);
      if (!value) return std::nullopt;
      field.value = size = *value;
    } else if (field.kind != eight_bytes && field.kind != four_bytes) {
      return std::nullopt;
    }
    if (field.kind != varint) {
      if (size > bytes.size() - at) return std::nullopt;
      field.bytes = bytes.substr(at, static_cast<std::size_t>(size));
      at += static_cast<std::size_t>(size);
      if (field.kind == sized && depth > 0 && !field.bytes.empty())
        field.message = parse(field.bytes, depth - 1);
    }
    message.push_back(std::move(field));
  }
  return message;
}

std::string serialise(const Message& message) {
  frcnn::test::Wire wire;
  for (const Field& field : message) {
    wire.varint(std::uint64_t{field.number} << 3 | field.kind);
    if (field.kind == varint) {
      wire.varint(field.value);
      continue;
    }
    const std::string bytes = field.message ? serialise(*field.message) : field.bytes;
    if (field.kind == sized) wire.varint(field.claimed.value_or(bytes.size()));
    wire.bytes += bytes;
  }
  return wire.bytes;
}

class Mutator {
 public:
  explicit Mutator(unsigned seed) : random_(seed) {}

  void change(Message& net) {
    for (std::size_t changes = 1 + below(3); changes > 0; --changes) {
      std::vector<Message*> messages;
      collect(net, messages);
      change_one(*messages[below(messages.size())], *messages[below(messages.size())]);
    }
  }

 private:
  std::size_t below(std::size_t count) { return random_() % count; }

  void collect(Message& message, std::vector<Message*>& found) {
    found.push_back(&message);
    for (Field& field : message)
      if (field.message) collect(*field.message, found);
  }

  std::uint64_t odd_number() {
    constexpr std::uint64_t numbers[] = {0,
                                         1,
                                         2,
                                         3,
                                         5,
                                         16,
                                         127,
                                         128,
                                         1u << 20,
                                         0x7FFFFFFF,
                                         0x80000000,
                                         0xFFFFFFFF,
                                         std::uint64_t{1} << 62,
                                         std::numeric_limits<std::uint64_t>::max()};
    return numbers[below(std::size(numbers))];
  }

  std::string mutate(std::string bytes) {
    const std::size_t size = bytes.size();
    bytes.resize(size + 16);
    bytes.resize(LLVMFuzzerMutate(reinterpret_cast<std::uint8_t*>(bytes.data()), size, bytes.size()));
    return bytes;
  }

  void change_value(Field& field) {
    if (field.kind == varint)
      field.value = below(2) ? odd_number() : field.value + below(5) - 2;
    else if (field.kind == sized && below(4) == 0)
      field.claimed = odd_number();
    else if (field.message)
      field.message->clear();
    else
      field.bytes = mutate(field.bytes);
    const std::size_t exact = field.kind == eight_bytes ? 8 : 4;
    if (field.kind == eight_bytes || field.kind == four_bytes) field.bytes.resize(exact);
  }

  // In `message`; `other` lends a field.
  void change_one(Message& message, const Message& other) {
    if (message.empty() || below(6) == 0) {
      Field field;
      if (!other.empty()) field = Field(other[below(other.size())]);
      message.insert(message.begin() + static_cast<std::ptrdiff_t>(below(message.size() + 1)),
                     std::move(field));
      return;
    }
    const std::size_t at = below(message.size());
    Field& field = message[at];
    switch (below(6)) {
      case 0:
        message.erase(message.begin() + static_cast<std::ptrdiff_t>(at));
        break;
      case 1:
        std::swap(field, message[below(message.size())]);
        break;
      case 2:  // the fields of layers, parameters and blobs lie there
        field.number = static_cast<std::uint32_t>(below(2) ? 1 + below(12) : 100 + below(60));
        break;
      case 3:
        field.kind = static_cast<std::uint8_t>(below(8));
        if (field.kind == eight_bytes || field.kind == four_bytes) {
          field.message.reset();
          field.bytes.resize(field.kind == eight_bytes ? 8 : 4);
        }
        break;
      default:
        change_value(field);
    }
  }

  std::minstd_rand random_;
};

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  constexpr int depth = 4;  // net, layer, blob, shape
  auto net = parse({reinterpret_cast<const char*>(data), size}, depth);
  if (!net || seed % 5 == 0) return LLVMFuzzerMutate(data, size, max_size);
  Mutator(seed).change(*net);
  const std::string out = serialise(*net);
  if (out.size() > max_size) return LLVMFuzzerMutate(data, size, max_size);
  std::memcpy(data, out.data(), out.size());
  return out.size();
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto net = frcnn::parse_caffemodel({reinterpret_cast<const std::byte*>(data), size}, "fuzz");
    unsigned touched = 0;
    for (const frcnn::CaffeLayer& layer : net.layers) {
      for (const frcnn::CaffeBlob& blob : layer.blobs) {
        std::size_t wanted = frcnn::size_of(blob.dtype);
        for (const std::int64_t d : blob.shape) wanted *= static_cast<std::size_t>(d);
        if (blob.bytes != wanted) std::abort();
        for (std::size_t i = 0; i < blob.bytes; ++i)
          touched += static_cast<const std::uint8_t*>(blob.data)[i];
      }
    }
    if (touched == ~0u) std::abort();
    frcnn::facts_of(net, "fuzz");
  } catch (const frcnn::Error&) {
  }
  return 0;
}
