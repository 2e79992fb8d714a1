// A reader of Python's pickles that can make numbers, texts, containers and references to tensors, and
// nothing else. A pickle is a program for a stack machine that may import and call what it likes; here every
// instruction and every name outside a short list is refused where it stands. Nothing is imported, called or
// looked up.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace frcnn {

enum class TorchType : std::uint8_t { f32, f16, bf16, f64, i64, i32, i16, i8, u8, boolean, untyped };
std::size_t size_of(TorchType type);
const char* name_of(TorchType type);

// A storage named by a persistent id. `key` lies in the pickle's bytes.
struct TorchStorage {
  std::string_view key;
  TorchType type = TorchType::f32;
  std::int64_t elements = 0;                        // of the stored array
  std::int64_t view_offset = 0, view_elements = 0;  // the part that tensors see; the whole but in old files
};

// What _rebuild_tensor was told, checked: sizes and strides are not negative, their rank is at most max_rank,
// and every element lies inside the storage.
struct TorchTensor {
  static constexpr std::size_t max_rank = 8;
  std::uint32_t storage = 0;        // Pickle::storages
  TorchType type = TorchType::f32;  // the storage's, unless that is untyped
  std::int64_t offset = 0;          // elements, within the stored array
  std::size_t rank = 0;
  std::array<std::int64_t, max_rank> shape{}, stride{};
  std::int64_t elements = 0;
};

struct PickleValue {
  // device, hooks and the like are opaque.
  enum class Kind : std::uint8_t {
    none,
    boolean,
    integer,
    real,
    text,
    tuple,
    list,
    dict,
    global,
    storage,
    tensor,
    opaque
  };
  Kind kind = Kind::none;
  std::uint32_t index = 0;  // a text's place, or which container, storage or tensor
  std::int64_t number = 0;  // boolean, integer; a text's length; a real's bits
};

// Values refer to each other by number, so a pickle may share and nest them, also in a circle: whoever walks
// down must count.
struct Pickle {
  PickleValue root;
  std::size_t bytes = 0;                             // of the pickle itself; more may follow it
  std::vector<std::vector<PickleValue>> containers;  // of a dict: key, value, key, value ...
  std::vector<TorchStorage> storages;
  std::vector<TorchTensor> tensors;
  const char* text_begin = nullptr;

  std::string_view text(const PickleValue& v) const {
    return {text_begin + v.index, static_cast<std::size_t>(v.number)};
  }
  const std::vector<PickleValue>& items(const PickleValue& v) const { return containers[v.index]; }
};

// The first pickle of `bytes`, which must outlive the result. Binary protocols 2 to 5. `where` stands in
// front of messages, `base` is what byte numbers in them count from. Takes time in proportion to the bytes
// and at most about 150 MB, mostly far less. Throws Error(bad_file) for damage and what exceeds the limits,
// Error(unsupported) that names the instruction or the global for what is not on the list.
Pickle read_pickle(std::span<const std::byte> bytes, const std::string& where, std::size_t base = 0);

}  // namespace frcnn
