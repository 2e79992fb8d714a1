#include "model_io/convert/torch_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <functional>
#include <optional>
#include <set>
#include <string_view>

#include "frcnn/error.h"
#include "model_io/convert/pickle.h"
#include "model_io/convert/zip_members.h"
#include "model_io/safetensors.h"

namespace frcnn {
namespace {

using Kind = PickleValue::Kind;

constexpr int max_depth = 8;  // of dictionaries around the state dict
// Texts of a pickle may be shared, so that a few bytes repeat a long one: what is copied out of it is
// bounded.
constexpr std::size_t max_key = 1024, max_facts = 1000;
constexpr std::size_t max_tensors = 1u << 17;
constexpr std::int64_t max_zip_version = 10;  // of PyTorch's own format versions
constexpr std::int64_t legacy_version = 1001;
// The integer 0x1950a86a20f9469cfc6c as a pickle's LONG1 holds it.
constexpr std::string_view legacy_magic("\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 10);
// Keys under which people keep a state dict, in order of preference.
constexpr std::string_view known_keys[]{"model",   "state_dict", "model_state_dict", "model_state", "net",
                                        "network", "weights",    "module",           "params"};

[[noreturn]] void bad(const std::string& source, const std::string& what,
                      ErrorCode code = ErrorCode::bad_file) {
  throw Error(code, source + ": " + what);
}

// The bytes of a storage, and what keeps them alive.
struct StorageBytes {
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> owner;
};
using FetchStorage = std::function<StorageBytes(const TorchStorage&)>;

std::optional<DType> weight_type(TorchType type) {
  switch (type) {
    case TorchType::f32:
      return DType::f32;
    case TorchType::f16:
      return DType::f16;
    case TorchType::bf16:
      return DType::bf16;
    case TorchType::f64:
      return DType::f64;
    default:
      return std::nullopt;
  }
}

// ---- from the pickle's values to tensors ----

class StateDict {
 public:
  // Copies of strided tensors are bounded by what the file holds, so that a byte cannot become a gigabyte.
  StateDict(const Pickle& pickle, const std::string& source, std::size_t file_bytes,
            const FetchStorage& fetch)
      : pickle_(pickle),
        source_(source),
        fetch_(fetch),
        allowed_((std::uint64_t{1} << 20) + 4 * file_bytes),
        has_tensors_(pickle.containers.size()),
        searched_(pickle.containers.size(), Search::none) {}

  TorchFile read() {
    const PickleValue* dict = find(pickle_.root, 0);
    if (!dict && endless_)
      bad(source_, fmt::format("no state dict within {} nested dictionaries", max_depth));
    if (!dict)
      bad(source_, "no state dict, a dictionary of named tensors: " + what_it_holds(), ErrorCode::bad_model);
    check_storages();
    const auto& items = pickle_.items(*dict);
    for (std::size_t i = 0; i + 1 < items.size(); i += 2) take(items[i], items[i + 1]);
    remove_prefix();
    return std::move(out_);
  }

 private:
  enum class Search : std::uint8_t { none, open, done };

  bool is_dict(const PickleValue& v) const { return v.kind == Kind::dict; }

  // Dictionaries may be shared, so each is looked through once.
  bool has_tensors(const PickleValue& dict) {
    std::optional<bool>& known = has_tensors_[dict.index];
    if (known) return *known;
    const auto& items = pickle_.items(dict);
    known = false;
    for (std::size_t i = 0; i + 1 < items.size() && !*known; i += 2)
      known = items[i].kind == Kind::text && items[i + 1].kind == Kind::tensor;
    return *known;
  }

  // What stands under a known name is preferred to tensors beside it, such as a best accuracy or a
  // generator's state.
  const PickleValue* find(const PickleValue& value, int depth) {
    if (!is_dict(value)) return nullptr;
    if (depth == max_depth || searched_[value.index] == Search::open) endless_ = true;
    if (depth == max_depth || searched_[value.index] != Search::none) return nullptr;
    searched_[value.index] = Search::open;
    const auto& items = pickle_.items(value);
    for (const PickleValue* inner : known_dicts(items))
      if (const PickleValue* found = find_inside(items, *inner, depth)) return found;
    if (has_tensors(value)) return &value;
    if (const PickleValue* inner = only_dict_with_tensors(items))
      if (const PickleValue* found = find_inside(items, *inner, depth)) return found;
    searched_[value.index] = Search::done;
    return nullptr;
  }

  const PickleValue* find_inside(const std::vector<PickleValue>& items, const PickleValue& inner, int depth) {
    const PickleValue* const found = find(inner, depth + 1);
    if (found) take_facts(items, &inner);
    return found;
  }

  // The dictionaries under known names, the most telling name first.
  std::vector<const PickleValue*> known_dicts(const std::vector<PickleValue>& items) const {
    std::vector<std::pair<std::ptrdiff_t, const PickleValue*>> ranked;
    for (std::size_t i = 0; i + 1 < items.size(); i += 2) {
      if (items[i].kind != Kind::text || !is_dict(items[i + 1])) continue;
      const auto known = std::find(std::begin(known_keys), std::end(known_keys), pickle_.text(items[i]));
      if (known != std::end(known_keys)) ranked.emplace_back(known - std::begin(known_keys), &items[i + 1]);
    }
    std::stable_sort(ranked.begin(), ranked.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<const PickleValue*> dicts;
    for (const auto& entry : ranked) dicts.push_back(entry.second);
    return dicts;
  }

  const PickleValue* only_dict_with_tensors(const std::vector<PickleValue>& items) {
    const PickleValue* only = nullptr;
    for (std::size_t i = 0; i + 1 < items.size(); i += 2) {
      if (items[i].kind != Kind::text || !is_dict(items[i + 1]) || !has_tensors(items[i + 1])) continue;
      if (only) return nullptr;
      only = &items[i + 1];
    }
    return only;
  }

  // Those nearer to the weights were taken before, and stay.
  void take_facts(const std::vector<PickleValue>& items, const PickleValue* inner) {
    for (std::size_t i = 0; i + 1 < items.size(); i += 2) {
      if (items[i].kind != Kind::text || &items[i + 1] == inner || pickle_.text(items[i]).size() > max_key)
        continue;
      const std::string key(pickle_.text(items[i]));
      const PickleValue& value = items[i + 1];
      if (value.kind == Kind::text)
        fact(key, std::string(pickle_.text(value).substr(0, 200)));
      else if (value.kind == Kind::boolean)
        fact(key, value.number ? "true" : "false");
      else if (value.kind == Kind::integer)
        fact(key, std::to_string(value.number));
      else if (value.kind == Kind::dict || value.kind == Kind::list || value.kind == Kind::tensor)
        ignore(fmt::format("{}: beside the weights", printable(key)));
    }
  }
  void fact(const std::string& key, std::string value) {
    if (out_.facts.size() < max_facts) out_.facts.try_emplace(key, std::move(value));
  }

  // A hostile file must not make a report of megabytes.
  void ignore(std::string what) {
    if (out_.ignored.size() < 100) out_.ignored.push_back(std::move(what));
  }

  std::string what_it_holds() const {
    const char* names[]{"None",   "a truth", "a number", "a number",  "a text",     "a tuple",
                        "a list", "",        "a type",   "a storage", "one tensor", "an object"};
    if (!is_dict(pickle_.root))
      return fmt::format("the file holds {}", names[static_cast<std::size_t>(pickle_.root.kind)]);
    std::vector<std::string> keys;
    const auto& items = pickle_.items(pickle_.root);
    for (std::size_t i = 0; i + 1 < items.size() && keys.size() < 10; i += 2)
      if (items[i].kind == Kind::text)
        keys.push_back(printable(std::string(pickle_.text(items[i]).substr(0, max_key))));
    return fmt::format("the file's dictionary has the keys {}",
                       keys.empty() ? "(none)" : fmt::to_string(fmt::join(keys, ", ")));
  }

  // Each mention of a storage tells its type and size anew.
  void check_storages() const {
    std::map<std::string_view, const TorchStorage*> seen;
    for (const TorchStorage& storage : pickle_.storages) {
      const TorchStorage& known = *seen.emplace(storage.key, &storage).first->second;
      if (known.elements != storage.elements || known.type != storage.type)
        bad(source_, fmt::format("the storage {} is said to be {} of {}, and {} of {}",
                                 printable(std::string(storage.key)), known.elements, name_of(known.type),
                                 storage.elements, name_of(storage.type)));
    }
  }

  void take(const PickleValue& key, const PickleValue& value) {
    if (key.kind != Kind::text) return ignore("an entry of the state dict whose key is no text");
    const std::string_view text = pickle_.text(key);
    if (text.size() > max_key)
      bad(source_,
          fmt::format("a key of the state dict has {} bytes, at most {} are allowed", text.size(), max_key));
    std::string name(text);
    if (!keys_.insert(text).second) bad(source_, fmt::format("the state dict has {} twice", printable(name)));
    if (value.kind != Kind::tensor) {
      if (value.kind != Kind::none) ignore(printable(name) + ": no tensor");
      return;
    }
    const TorchTensor& tensor = pickle_.tensors[value.index];
    const auto dtype = weight_type(tensor.type);
    if (!dtype)
      return ignore(fmt::format("{}: {}, no floating-point weight", printable(name), name_of(tensor.type)));
    if (out_.tensors.size() == max_tensors) bad(source_, fmt::format("more than {} tensors", max_tensors));
    TorchFileTensor out;
    out.name = std::move(name);
    out.dtype = *dtype;
    out.shape.assign(tensor.shape.begin(), tensor.shape.begin() + static_cast<std::ptrdiff_t>(tensor.rank));
    const StorageBytes storage = fetch_(pickle_.storages[tensor.storage]);
    fill(out, tensor, storage);
    out_.tensors.push_back(std::move(out));
  }

  void fill(TorchFileTensor& out, const TorchTensor& tensor, const StorageBytes& storage) {
    const std::size_t unit = frcnn::size_of(tensor.type);
    if (tensor.elements == 0) return;
    const std::byte* const begin = storage.bytes.data() + static_cast<std::size_t>(tensor.offset) * unit;
    const bool packed = is_packed(tensor);
    if (!packed) {
      const std::uint64_t left = allowed_ / unit;
      if (static_cast<std::uint64_t>(tensor.elements) > left)
        bad(source_,
            fmt::format("{}: {} elements out of a storage of {}, more than the size of the file justifies",
                        printable(out.name), tensor.elements, storage.bytes.size() / unit));
      allowed_ -= static_cast<std::uint64_t>(tensor.elements) * unit;
    }
    out.bytes = static_cast<std::size_t>(tensor.elements) * unit;  // in the file, or counted above
    if (packed) {
      out.data = begin;
      out.owner = storage.owner;
      return;
    }
    const auto copy = std::make_shared<std::vector<std::byte>>(out.bytes);
    gather(copy->data(), begin, tensor, unit);
    out.data = copy->data();
    out.owner = copy;
  }

  static bool is_packed(const TorchTensor& tensor) {
    std::int64_t expected = 1;
    for (std::size_t d = tensor.rank; d-- > 0;) {
      if (tensor.shape[d] != 1 && tensor.stride[d] != expected) return false;
      expected *= tensor.shape[d];
    }
    return true;
  }

  static void gather(std::byte* dst, const std::byte* src, const TorchTensor& tensor, std::size_t unit) {
    std::array<std::int64_t, TorchTensor::max_rank> at{};
    std::int64_t from = 0;
    for (std::int64_t i = 0; i < tensor.elements; ++i, dst += unit) {
      std::memcpy(dst, src + static_cast<std::size_t>(from) * unit, unit);
      for (std::size_t d = tensor.rank; d-- > 0;) {  // count up, last dimension fastest
        from += tensor.stride[d];
        if (++at[d] < tensor.shape[d]) break;
        from -= tensor.stride[d] * tensor.shape[d];
        at[d] = 0;
      }
    }
  }

  void remove_prefix() {
    constexpr std::string_view prefix = "module.";
    auto& tensors = out_.tensors;
    const auto has = [&](const TorchFileTensor& t) { return t.name.starts_with(prefix); };
    if (!std::all_of(tensors.begin(), tensors.end(), has)) return;
    for (TorchFileTensor& tensor : tensors) tensor.name.erase(0, prefix.size());
  }

  const Pickle& pickle_;
  const std::string& source_;
  const FetchStorage& fetch_;
  std::uint64_t allowed_;                         // bytes that copies may still take
  std::vector<std::optional<bool>> has_tensors_;  // by container
  std::vector<Search> searched_;                  // by container
  bool endless_ = false;                          // dictionaries nest too deeply, or in a circle
  std::set<std::string_view> keys_;
  TorchFile out_;
};

std::uint64_t bytes_of(const TorchStorage& storage, const std::string& source) {
  std::uint64_t bytes = 0;
  if (__builtin_mul_overflow(static_cast<std::uint64_t>(storage.elements), size_of(storage.type), &bytes))
    bad(source, fmt::format("the storage {} claims {} elements", printable(std::string(storage.key)),
                            storage.elements));
  return bytes;
}

// ---- the zip form ----

bool ends_with(const std::string& name, std::string_view ending) {
  return name.size() > ending.size() && std::string_view(name).substr(name.size() - ending.size()) == ending;
}

std::string_view as_text(const std::vector<std::byte>& bytes) {
  std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' '))
    text.remove_suffix(1);
  return text;
}

// A small member that says one thing.
std::string short_member(const ZipMembers& zip, const std::string& name, const std::string& source) {
  if (zip.size_of(name) > 64) bad(source, fmt::format("the zip member {} is too long", printable(name)));
  return std::string(as_text(*zip.read(name)));
}

TorchFile read_zip(std::span<const std::byte> bytes, const std::string& source) {
  const ZipMembers zip(bytes, source);
  std::string folder;
  for (const std::string& name : zip.names()) {
    if (ends_with(name, "/constants.pkl"))
      bad(source, "a TorchScript archive; save the module's state_dict() with torch.save instead",
          ErrorCode::unsupported);
    if (!ends_with(name, "/data.pkl")) continue;
    if (!folder.empty()) bad(source, "two members called data.pkl");
    folder = name.substr(0, name.size() - std::string_view("data.pkl").size());
  }
  if (folder.size() > max_key)
    bad(source, fmt::format("the archive's folder has a name of {} bytes", folder.size()));
  if (folder.empty()) bad(source, "a zip archive, but not one of torch.save: no data.pkl in it");

  const std::string version = short_member(zip, folder + "version", source);
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(version.data(), version.data() + version.size(), number);
  if (error != std::errc() || end != version.data() + version.size() || number < 1)
    bad(source, fmt::format("the version of the archive is {}", printable(version)));
  if (number > max_zip_version)
    bad(source,
        fmt::format("version {} of PyTorch's archive format; at most {} is known", number, max_zip_version),
        ErrorCode::unsupported);
  if (zip.has(folder + "byteorder")) {
    const std::string order = short_member(zip, folder + "byteorder", source);
    if (order == "big")
      bad(source, "saved on a big-endian machine; save it again on a little-endian one",
          ErrorCode::unsupported);
    if (order != "little") bad(source, fmt::format("the byte order of the archive is {}", printable(order)));
  }

  const auto text = zip.read(folder + "data.pkl");
  const Pickle pickle = read_pickle(*text, source + ": " + folder + "data.pkl");
  std::map<std::string, StorageBytes> read;
  const FetchStorage fetch = [&](const TorchStorage& storage) {
    const std::string member = folder + "data/" + std::string(storage.key);
    const std::uint64_t wanted = bytes_of(storage, source);
    if (zip.size_of(member) != wanted)
      bad(source, fmt::format("the zip member {} has {} bytes, the pickle says {}", printable(member),
                              zip.size_of(member), wanted));
    if (const auto found = read.find(member); found != read.end()) return found->second;
    const auto data = zip.read(member);
    return read.emplace(member, StorageBytes{*data, data}).first->second;
  };
  TorchFile file = StateDict(pickle, source, bytes.size(), fetch).read();
  file.zip = true;
  return file;
}

// ---- the older form: pickles, one after the other, then the storages ----

class LegacyReader {
 public:
  LegacyReader(std::span<const std::byte> bytes, const std::string& source)
      : bytes_(bytes), source_(source) {}

  TorchFile read() {
    check_magic();
    const Pickle version = next();
    if (version.root.kind != Kind::integer || version.root.number != legacy_version)
      bad(source_, "the version of the file is not 1001, the only one there is", ErrorCode::unsupported);
    check_system(next());
    const Pickle object = next(), keys = next();
    locate(object, keys);
    const FetchStorage fetch = [&](const TorchStorage& storage) {
      const auto found = places_.find(storage.key);
      if (found == places_.end())
        bad(source_, fmt::format("the storage {} is not in the file", printable(std::string(storage.key))));
      if (found->second.size() != bytes_of(storage, source_))
        bad(source_, fmt::format("the storage {} has {} bytes, the pickle says {}",
                                 printable(std::string(storage.key)), found->second.size(),
                                 bytes_of(storage, source_)));
      return StorageBytes{found->second, nullptr};
    };
    return StateDict(object, source_, bytes_.size(), fetch).read();
  }

 private:
  Pickle next() {
    Pickle pickle = read_pickle(bytes_.subspan(at_), source_, at_);
    at_ += pickle.bytes;
    return pickle;
  }

  void check_magic() {
    const Pickle magic = next();
    if (magic.root.kind != Kind::opaque || magic.text(magic.root) != legacy_magic)
      bad(source_, "a pickle, but not one of torch.save: its first value is not PyTorch's");
  }

  void check_system(const Pickle& system) const {
    if (system.root.kind != Kind::dict) bad(source_, "no description of the machine that saved the file");
    const auto& items = system.items(system.root);
    for (std::size_t i = 0; i + 1 < items.size(); i += 2)
      if (items[i].kind == Kind::text && system.text(items[i]) == "little_endian" &&
          (items[i + 1].kind != Kind::boolean || items[i + 1].number == 0))
        bad(source_, "saved on a big-endian machine; save it again on a little-endian one",
            ErrorCode::unsupported);
  }

  // Each storage: its number of elements in eight bytes, then the elements.
  void locate(const Pickle& object, const Pickle& keys) {
    std::map<std::string_view, const TorchStorage*> named;
    for (const TorchStorage& storage : object.storages) named.emplace(storage.key, &storage);
    if (keys.root.kind != Kind::list) bad(source_, "no list of storages behind the objects");
    for (const PickleValue& key : keys.items(keys.root)) {
      if (key.kind != Kind::text) bad(source_, "a storage's key is no text");
      const std::string_view name = keys.text(key);
      const std::string shown = printable(std::string(name));
      const auto found = named.find(name);
      if (found == named.end()) bad(source_, fmt::format("the storage {} belongs to no tensor", shown));
      const std::uint64_t wanted = bytes_of(*found->second, source_);
      if (bytes_.size() - at_ < 8)
        bad(source_, fmt::format("byte {}: the file ends before the storage {}", at_, shown));
      std::uint64_t elements = 0;
      std::memcpy(&elements, bytes_.data() + at_, 8);
      if (elements != static_cast<std::uint64_t>(found->second->elements))
        bad(source_, fmt::format("byte {}: the storage {} has {} elements, the pickle says {}", at_, shown,
                                 elements, found->second->elements));
      at_ += 8;
      if (wanted > bytes_.size() - at_)
        bad(source_, fmt::format("byte {}: the storage {} needs {} bytes, {} are left", at_, shown, wanted,
                                 bytes_.size() - at_));
      if (!places_.emplace(found->second->key, bytes_.subspan(at_, static_cast<std::size_t>(wanted))).second)
        bad(source_, fmt::format("the storage {} is there twice", shown));
      at_ += static_cast<std::size_t>(wanted);
    }
  }

  std::span<const std::byte> bytes_;
  const std::string& source_;
  std::size_t at_ = 0;
  std::map<std::string_view, std::span<const std::byte>> places_;  // keys lie in the file's bytes
};

bool starts_with(std::span<const std::byte> bytes, std::string_view magic) {
  return bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
}

}  // namespace

static_assert(std::endian::native == std::endian::little, "storages are used as they lie in the file");

bool looks_like_torch_file(std::span<const std::byte> bytes) {
  if (starts_with(bytes, "PK\x03\x04") || starts_with(bytes, "PK\x05\x06")) return true;
  // Any protocol, the text one too: their reader says which it knows.
  if (starts_with(bytes, "L119547037146038801333356L\n")) return true;
  return bytes.size() > 2 && bytes[0] == std::byte{0x80} && static_cast<unsigned>(bytes[1]) <= 9;
}

TorchFile read_torch_file(std::span<const std::byte> bytes, const std::string& source) {
  if (starts_with(bytes, "PK")) return read_zip(bytes, source);
  return LegacyReader(bytes, source).read();
}

}  // namespace frcnn
