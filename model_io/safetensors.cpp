#include "model_io/safetensors.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "frcnn/error.h"
#include "model_io/atomic_file.h"
#include "model_io/mapped_file.h"

namespace frcnn {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are mapped as they lie in the file");

constexpr std::uint64_t max_header_bytes = 100'000'000;  // the limit of the format's own reader
constexpr std::size_t max_rank = 32;
constexpr std::size_t max_tensors = 1u << 17,
                      max_metadata = 10'000;  // a name costs more memory than bytes of the file
constexpr std::size_t alignment = 64;

struct DTypeName {
  std::string_view text;
  DType dtype;
};
constexpr DTypeName dtype_names[] = {{"F32", DType::f32}, {"F16", DType::f16}, {"BF16", DType::bf16},
                                     {"F64", DType::f64}, {"I32", DType::i32}, {"I64", DType::i64},
                                     {"U8", DType::u8}};
// Legal in the format, of no use to a detector.
constexpr std::string_view foreign_dtypes[] = {"BOOL",    "I8",      "I16",    "U16",     "U32",
                                               "U64",     "C64",     "F4",     "F8_E4M3", "F8_E5M2",
                                               "F8_E8M0", "F6_E2M3", "F6_E3M2"};

struct Entry {  // one tensor as the header describes it
  std::string name, dtype;
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> offsets;
  bool has_dtype = false, has_shape = false, has_offsets = false;
};

// Reads the header as it is parsed. The header has one fixed form, {name: {dtype, shape, data_offsets}} and
// __metadata__ of strings, so anything else stops at once: no depth, no document in memory.
// Every handler returns bool or throws Error, as the parser's interface demands.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(std::string path, std::map<std::string, std::string>& metadata)
      : path_(std::move(path)), metadata_(metadata) {}

  std::vector<Entry> entries;

  bool start_object(std::size_t) override {
    switch (where_) {
      case Where::before:
        where_ = Where::top;
        return true;
      case Where::tensor_wanted:
        where_ = Where::tensor;
        return true;
      case Where::metadata_wanted:
        where_ = Where::metadata;
        return true;
      default:
        return wrong("an object");
    }
  }
  bool key(string_t& text) override {
    if (where_ == Where::top) return top_key(text);
    if (where_ == Where::metadata) {
      if (metadata_.size() == max_metadata)
        fail("more than " + std::to_string(max_metadata) + " entries of __metadata__");
      if (!metadata_.emplace(text, "").second) fail("__metadata__ has the key " + printable(text) + " twice");
      key_ = text;
      where_ = Where::metadata_value;
      return true;
    }
    Entry& entry = entries.back();
    bool* seen = text == "dtype"          ? &entry.has_dtype
                 : text == "shape"        ? &entry.has_shape
                 : text == "data_offsets" ? &entry.has_offsets
                                          : nullptr;
    if (seen == nullptr) fail("tensor " + printable(entry.name) + " has the unknown key " + printable(text));
    if (*seen) fail("tensor " + printable(entry.name) + " has the key " + printable(text) + " twice");
    *seen = true;
    where_ = text == "dtype" ? Where::dtype : text == "shape" ? Where::shape_wanted : Where::offsets_wanted;
    return true;
  }
  bool end_object() override {
    if (where_ == Where::tensor) {
      const Entry& entry = entries.back();
      if (!entry.has_dtype || !entry.has_shape || !entry.has_offsets)
        fail("tensor " + printable(entry.name) + " lacks one of dtype, shape and data_offsets");
      where_ = Where::top;
    } else {
      where_ = where_ == Where::metadata ? Where::top : Where::after;
    }
    return true;
  }
  bool start_array(std::size_t) override {
    if (where_ == Where::shape_wanted) return where_ = Where::shape, true;
    if (where_ == Where::offsets_wanted) return where_ = Where::offsets, true;
    return wrong("an array");
  }
  bool end_array() override {
    if (where_ == Where::offsets && entries.back().offsets.size() != 2)
      fail("tensor " + printable(entries.back().name) + ": data_offsets must hold 2 numbers, it holds " +
           std::to_string(entries.back().offsets.size()));
    where_ = Where::tensor;
    return true;
  }
  bool string(string_t& text) override {
    if (where_ == Where::dtype) {
      entries.back().dtype = text;
      where_ = Where::tensor;
      return true;
    }
    if (where_ != Where::metadata_value) return wrong("a string");
    metadata_[key_] = std::move(text);
    where_ = Where::metadata;
    return true;
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (value > static_cast<number_unsigned_t>(std::numeric_limits<std::int64_t>::max()))
      fail(place() + std::to_string(value) + " is too large");
    if (where_ == Where::shape) {
      if (entries.back().shape.size() == max_rank)
        fail("tensor " + printable(entries.back().name) + " has more than " + std::to_string(max_rank) +
             " dimensions");
      entries.back().shape.push_back(static_cast<std::int64_t>(value));
      return true;
    }
    if (where_ != Where::offsets) return wrong("a number");
    if (entries.back().offsets.size() == 2)
      fail("tensor " + printable(entries.back().name) + ": data_offsets must hold 2 numbers, it holds more");
    entries.back().offsets.push_back(static_cast<std::int64_t>(value));
    return true;
  }
  bool number_integer(number_integer_t value) override {
    return wrong("the negative number " + std::to_string(value));
  }
  bool number_float(number_float_t, const string_t& text) override { return wrong("the number " + text); }
  bool null() override { return wrong("null"); }
  bool boolean(bool) override { return wrong("a boolean"); }
  bool binary(binary_t&) override { return wrong("binary data"); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception&) override {
    fail("the header is not JSON from byte " + std::to_string(position) + " of it on");
  }

 private:
  enum class Where {
    before,
    top,
    tensor_wanted,
    tensor,
    dtype,
    shape_wanted,
    shape,
    offsets_wanted,
    offsets,
    metadata_wanted,
    metadata,
    metadata_value,
    after
  };

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorCode::bad_file, path_ + ": " + what);
  }
  std::string place() const {
    if (where_ == Where::before || where_ == Where::after) return "the header: ";
    if (where_ == Where::metadata_wanted || where_ == Where::metadata || where_ == Where::metadata_value) {
      return "__metadata__: ";
    }
    return "tensor " + printable(entries.empty() ? std::string() : entries.back().name) + ": ";
  }
  bool wrong(const std::string& found) const { fail(place() + found + " stands where the format has none"); }

  bool top_key(const std::string& text) {
    if (text == "__metadata__") {
      if (has_metadata_) fail("the header has __metadata__ twice");
      has_metadata_ = true;
      where_ = Where::metadata_wanted;
      return true;
    }
    if (entries.size() == max_tensors) fail("more than " + std::to_string(max_tensors) + " tensors");
    if (!names_.emplace(text, true).second) fail("the header has the tensor " + printable(text) + " twice");
    entries.push_back({});
    entries.back().name = text;
    where_ = Where::tensor_wanted;
    return true;
  }

  std::string path_, key_;
  std::map<std::string, std::string>& metadata_;
  std::map<std::string, bool> names_;
  bool has_metadata_ = false;
  Where where_ = Where::before;
};

DType parse_dtype(const Entry& entry, const std::string& path) {
  for (const DTypeName& known : dtype_names)
    if (known.text == entry.dtype) return known.dtype;
  const bool foreign = std::find(std::begin(foreign_dtypes), std::end(foreign_dtypes), entry.dtype) !=
                       std::end(foreign_dtypes);
  throw Error(foreign ? ErrorCode::unsupported : ErrorCode::bad_file,
              path + ": tensor " + printable(entry.name) + " has the element type " + printable(entry.dtype) +
                  (foreign ? ", which is not supported (F32, F16, BF16, F64, I32, I64 and U8 are)"
                           : ", which the format does not have"));
}

// Bytes of a packed tensor, or nothing when they do not fit into 63 bits.
std::optional<std::int64_t> checked_bytes(std::span<const std::int64_t> shape, DType dtype) {
  std::int64_t bytes = static_cast<std::int64_t>(size_of(dtype));
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  for (const std::int64_t dim : shape) {
    if (dim < 0 || __builtin_mul_overflow(bytes, dim, &bytes)) return std::nullopt;
  }
  return bytes;
}

StoredTensor place_tensor(Entry& entry, std::span<const std::byte> data, const std::string& path) {
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorCode::bad_file, path + ": tensor " + printable(entry.name) + ": " + what);
  };
  StoredTensor tensor;
  tensor.dtype = parse_dtype(entry, path);
  const std::int64_t begin = entry.offsets[0], end = entry.offsets[1];
  const std::string range = std::to_string(begin) + ".." + std::to_string(end);
  if (begin > end) fail("its data ends before it begins (" + range + ")");
  if (static_cast<std::uint64_t>(end) > data.size())
    fail("its data lies at bytes " + range + ", the file has " + std::to_string(data.size()) +
         " bytes of data");
  const auto bytes = checked_bytes(entry.shape, tensor.dtype);
  if (!bytes) fail("the size of shape " + shape_string(entry.shape) + " overflows");
  if (*bytes != end - begin)
    fail("shape " + shape_string(entry.shape) + " of " + entry.dtype + " takes " + std::to_string(*bytes) +
         " bytes, its data has " + std::to_string(end - begin));
  tensor.name = std::move(entry.name);
  tensor.shape = std::move(entry.shape);
  tensor.data = data.data() + begin;
  tensor.bytes = static_cast<std::size_t>(*bytes);
  return tensor;
}

// Sorted by place in the file; together the tensors must cover the data exactly once.
std::vector<StoredTensor> place_tensors(std::vector<Entry> entries, std::span<const std::byte> data,
                                        const std::string& path) {
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return a.offsets < b.offsets; });
  std::vector<StoredTensor> tensors;
  tensors.reserve(entries.size());
  std::int64_t covered = 0;
  for (Entry& entry : entries) {
    const std::int64_t begin = entry.offsets[0], end = entry.offsets[1];
    StoredTensor tensor = place_tensor(entry, data, path);
    if (begin != covered)
      throw Error(ErrorCode::bad_file, path + ": tensor " + printable(tensor.name) +
                                           ": its data begins at byte " + std::to_string(begin) +
                                           ", the one before it ends at " + std::to_string(covered) +
                                           (begin < covered ? " (overlap)" : " (hole)"));
    covered = end;
    tensors.push_back(std::move(tensor));
  }
  if (static_cast<std::uint64_t>(covered) != data.size())
    throw Error(ErrorCode::bad_file, path + ": " +
                                         std::to_string(data.size() - static_cast<std::size_t>(covered)) +
                                         " bytes after the last tensor belong to none");
  return tensors;
}

std::size_t page_bytes() { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

std::string dtype_text(DType dtype) {
  for (const DTypeName& known : dtype_names)
    if (known.dtype == dtype) return std::string(known.text);
  throw Error(ErrorCode::invalid_argument,
              "safetensors: unknown element type " + std::to_string(static_cast<int>(dtype)));
}

std::string make_header(const std::string& path, std::span<const StoredTensor> tensors,
                        const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::map<std::string, bool> names;
  std::int64_t at = 0;
  for (const StoredTensor& tensor : tensors) {
    const auto fail = [&](const std::string& what) {
      throw Error(ErrorCode::invalid_argument, path + ": tensor " + printable(tensor.name) + " " + what);
    };
    if (tensor.name == "__metadata__") fail("cannot have this name");
    if (!names.emplace(tensor.name, true).second) fail("is given twice");
    if (tensor.shape.size() > max_rank) fail("has more than " + std::to_string(max_rank) + " dimensions");
    const auto bytes = checked_bytes(tensor.shape, tensor.dtype);
    if (!bytes || static_cast<std::size_t>(*bytes) != tensor.bytes)
      fail("of shape " + shape_string(tensor.shape) + " and type " + dtype_text(tensor.dtype) +
           " cannot have " + std::to_string(tensor.bytes) + " bytes");
    // push_back on the object's own storage: ordered_json looks a key up by a linear search
    header.get_ref<nlohmann::ordered_json::object_t&>().push_back({tensor.name,
                                                                   {{"dtype", dtype_text(tensor.dtype)},
                                                                    {"shape", tensor.shape},
                                                                    {"data_offsets", {at, at + *bytes}}}});
    at += *bytes;
  }
  try {
    std::string text = header.dump();
    text.append((alignment - (8 + text.size()) % alignment) % alignment, ' ');
    if (text.size() > max_header_bytes)
      throw Error(ErrorCode::invalid_argument,
                  path + ": a header of " + std::to_string(text.size()) + " bytes is too long");
    return text;
  } catch (const nlohmann::json::exception&) {
    throw Error(ErrorCode::invalid_argument, path + ": a name or a metadata value is not UTF-8");
  }
}

}  // namespace

bool is_integer(DType dtype) { return dtype == DType::i32 || dtype == DType::i64 || dtype == DType::u8; }

std::string shape_string(std::span<const std::int64_t> shape) {
  if (shape.empty()) return "scalar";
  std::string text;
  for (const std::int64_t dim : shape) {
    if (!text.empty()) text += 'x';
    text += std::to_string(dim);
  }
  return text;
}

std::string printable(const std::string& name) {
  constexpr std::size_t longest = 160;
  constexpr char hex[] = "0123456789abcdef";
  std::string text = "'";
  for (std::size_t i = 0; i < name.size() && i < longest; ++i) {
    const auto byte = static_cast<unsigned char>(name[i]);
    if (byte >= 0x20 && byte != 0x7f) {
      text += name[i];
    } else {
      text += {'\\', 'x', hex[byte >> 4], hex[byte & 15]};
    }
  }
  return text + (name.size() > longest ? "'..." : "'");
}

std::shared_ptr<const SafetensorsFile> SafetensorsFile::parse(std::span<const std::byte> bytes,
                                                              const std::string& name) {
  const auto fail = [&](const std::string& what) { throw Error(ErrorCode::bad_file, name + ": " + what); };
  if (bytes.size() < 8) fail("not a safetensors file: it has " + std::to_string(bytes.size()) + " bytes");
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), 8);
  if (header_bytes > max_header_bytes)
    fail("not a safetensors file: its header would have " + std::to_string(header_bytes) +
         " bytes (at most " + std::to_string(max_header_bytes) +
         " are allowed); `frcnn convert` reads other programs' files");
  if (header_bytes > bytes.size() - 8)
    fail("the header claims " + std::to_string(header_bytes) + " bytes, the file has " +
         std::to_string(bytes.size() - 8) + " after the length: truncated, or not a safetensors file");
  const auto* text = reinterpret_cast<const char*>(bytes.data() + 8);
  if (header_bytes == 0 || text[0] != '{') fail("not a safetensors file: its header does not begin with '{'");

  auto file = std::make_shared<SafetensorsFile>();
  file->path_ = name;
  HeaderReader reader(name, file->metadata_);
  nlohmann::json::sax_parse(text, text + header_bytes, &reader);
  file->tensors_ = place_tensors(std::move(reader.entries),
                                 bytes.subspan(8 + static_cast<std::size_t>(header_bytes)), name);
  for (std::size_t i = 0; i < file->tensors_.size(); ++i) file->index_.emplace(file->tensors_[i].name, i);
  return file;
}

std::shared_ptr<const SafetensorsFile> SafetensorsFile::open(const std::string& path) {
  return map(MappedFile::open(path), path);
}

std::shared_ptr<const SafetensorsFile> SafetensorsFile::map(std::shared_ptr<const MappedFile> mapping,
                                                            const std::string& name) {
  auto file = std::const_pointer_cast<SafetensorsFile>(parse(mapping->bytes(), name));
  file->mapping_ = std::move(mapping);
  return file;
}

const StoredTensor* SafetensorsFile::find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

void SafetensorsFile::release_pages(const StoredTensor& tensor) const {
  if (!mapping_) return;
  // Only whole pages inside the tensor: those at its ends belong to its neighbours too.
  const std::size_t page = page_bytes();
  const auto begin = reinterpret_cast<std::uintptr_t>(tensor.data);
  const std::uintptr_t first = (begin + page - 1) / page * page, last = (begin + tensor.bytes) / page * page;
  if (first < last)
    ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);  // a hint: may fail
}

void write_safetensors(const std::string& path, std::span<const StoredTensor> tensors,
                       const std::map<std::string, std::string>& metadata) {
  const std::string header = make_header(path, tensors, metadata);
  const std::uint64_t header_bytes = header.size();
  write_atomically(path, [&](const Append& append) {
    append(&header_bytes, sizeof header_bytes);
    append(header.data(), header.size());
    for (const StoredTensor& tensor : tensors) append(tensor.data, tensor.bytes);
  });
}

}  // namespace frcnn
