// Any bytes as a safetensors file: an Error, or tensors that lie inside the bytes and can be written again.
// The mutator takes the file apart into length, JSON and numbers, changes a tensor's type, shape or place,
// and puts it together again with the right length, so that damage reaches the checks behind the JSON.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "frcnn/error.h"
#include "model_io/safetensors.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace {

using Json = nlohmann::ordered_json;

class Mutator {
 public:
  explicit Mutator(unsigned seed) : random_(seed) {}

  // A file with this header and these numbers, changed.
  std::string changed(std::string header, std::string numbers) {
    std::optional<std::uint64_t> claimed;
    switch (below(8)) {
      case 0:
        claimed = odd_number();
        break;
      case 1:
        header = mutate(header);
        break;
      case 2:
        numbers.resize(below(2) ? numbers.size() + 1 + below(8) : below(numbers.size() + 1));
        break;
      default:
        header = changed_tensors(header);
    }
    const std::uint64_t length = claimed.value_or(header.size());
    std::string out(8, '\0');
    for (std::size_t i = 0; i < 8; ++i) out[i] = static_cast<char>(length >> 8 * i & 0xFF);
    return out + header + numbers;
  }

 private:
  std::size_t below(std::size_t count) { return random_() % count; }

  std::uint64_t odd_number() {
    constexpr std::uint64_t numbers[] = {0,
                                         1,
                                         2,
                                         7,
                                         8,
                                         100u << 20,
                                         0x7FFFFFFF,
                                         0xFFFFFFFF,
                                         std::uint64_t{1} << 62,
                                         std::uint64_t{1} << 63,
                                         std::numeric_limits<std::uint64_t>::max()};
    return numbers[below(std::size(numbers))];
  }

  std::string mutate(std::string bytes) {
    const std::size_t size = bytes.size();
    bytes.resize(size + 16);
    bytes.resize(LLVMFuzzerMutate(reinterpret_cast<std::uint8_t*>(bytes.data()), size, bytes.size()));
    return bytes;
  }

  std::string changed_tensors(const std::string& header) {
    Json json = Json::parse(header, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || json.empty()) return mutate(header);
    const auto entry = std::next(json.begin(), static_cast<std::ptrdiff_t>(below(json.size())));
    const std::string name = entry.key();
    if (below(6) == 0) {  // a name twice, which a JSON object here cannot hold
      std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
      text.insert(1, Json(name).dump(-1, ' ', false, Json::error_handler_t::replace) + ":" +
                         entry->dump(-1, ' ', false, Json::error_handler_t::replace) + ",");
      return text;
    }
    if (below(6) == 0) {
      if (below(2))
        json.erase(name);
      else
        json[name + "x"] = Json(*entry);
    } else if (entry->is_object()) {
      change_entry(*entry);
    }
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
  }

  void change_entry(Json& entry) {
    constexpr const char* types[] = {"F64", "F32", "F16", "BF16", "I64",    "I32",
                                     "I16", "I8",  "U8",  "BOOL", "F8_E4M3"};
    switch (below(5)) {
      case 0:
        entry["dtype"] = types[below(std::size(types))];
        break;
      case 1:
        change_number(entry["shape"]);
        break;
      case 2:
        change_number(entry["data_offsets"]);
        break;
      case 3:
        entry[below(2) ? "extra" : "shape"] = Json();
        break;
      default:
        if (!entry.empty()) entry.erase(entry.begin().key());
    }
  }

  void change_number(Json& list) {
    if (!list.is_array()) list = Json::array();
    if (list.empty() || below(4) == 0) {
      list.push_back(odd_number());
      return;
    }
    Json& number = list[below(list.size())];
    switch (below(4)) {
      case 0:
        number = odd_number();
        break;
      case 1:
        number = number.is_number_unsigned() ? number.get<std::uint64_t>() + below(9) - 4 : 1;
        break;
      case 2:
        number = below(2) ? Json(-1) : Json(1.5);
        break;
      default:
        std::swap(number, list[below(list.size())]);
    }
  }

  std::minstd_rand random_;
};

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  std::uint64_t length = 0;
  for (std::size_t i = 8; i-- > 0;) length = length << 8 | (i < size ? data[i] : 0);
  if (size < 8 || length > size - 8 || seed % 5 == 0) return LLVMFuzzerMutate(data, size, max_size);
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const auto end = static_cast<std::size_t>(8 + length);
  const std::string out = Mutator(seed).changed(bytes.substr(8, end - 8), bytes.substr(end));
  if (out.size() > max_size) return LLVMFuzzerMutate(data, size, max_size);
  std::memcpy(data, out.data(), out.size());
  return out.size();
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto file = frcnn::SafetensorsFile::parse({reinterpret_cast<const std::byte*>(data), size}, "fuzz");
    std::size_t sum = 0;
    unsigned touched = 0;
    for (const frcnn::StoredTensor& tensor : file->tensors()) {
      sum += tensor.bytes;
      if (file->find(tensor.name) != &tensor) std::abort();
      for (std::size_t i = 0; i < tensor.bytes; ++i)
        touched += static_cast<const std::uint8_t*>(tensor.data)[i];
    }
    if (sum > size || touched == ~0u) std::abort();
    frcnn::write_safetensors("/dev/null", file->tensors(), file->metadata());
  } catch (const frcnn::Error&) {
  }
  return 0;
}
