// Writes PyTorch files for tests, byte by byte: an oracle that shares nothing with the reader, and the place
// where hostile files are made.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace frcnn::test {

// ---- pickles ----

class PickleBytes {
 public:
  std::string bytes;

  PickleBytes& raw(const std::string& opcodes) {
    bytes += opcodes;
    return *this;
  }
  PickleBytes& little(std::uint64_t value, int count) {
    for (int i = 0; i < count; ++i) bytes += static_cast<char>(i < 8 ? value >> (8 * i) : 0);
    return *this;
  }
  PickleBytes& proto(int version = 2) { return raw("\x80").little(static_cast<std::uint64_t>(version), 1); }
  PickleBytes& global(const std::string& module, const std::string& name) {
    return raw("c" + module + "\n" + name + "\n");
  }
  PickleBytes& text(const std::string& value) { return raw("X").little(value.size(), 4).raw(value); }
  PickleBytes& old_text(const std::string& value) {
    return raw("U").little(value.size(), 1).raw(value);
  }  // Python 2
  PickleBytes& integer(std::int64_t value) {
    if (value >= 0 && value < 256) return raw("K").little(static_cast<std::uint64_t>(value), 1);
    if (value >= INT32_MIN && value <= INT32_MAX)
      return raw("J").little(static_cast<std::uint64_t>(value), 4);
    return raw("\x8a\x08").little(static_cast<std::uint64_t>(value), 8);
  }
  PickleBytes& tuple(const std::vector<std::int64_t>& values) {
    raw("(");
    for (const std::int64_t v : values) integer(v);
    return raw("t");
  }
  PickleBytes& boolean(bool value) { return raw(value ? "\x88" : "\x89"); }
  PickleBytes& storage(const std::string& type, const std::string& key, std::int64_t elements,
                       bool legacy = false) {
    raw("(").text("storage").global("torch", type).text(key).text("cpu").integer(elements);
    return raw(legacy ? "NtQ" : "tQ");
  }
  PickleBytes& hooks() { return global("collections", "OrderedDict").raw(")R"); }
};

inline std::vector<std::int64_t> packed_strides(const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> strides(shape.size(), 1);
  for (std::size_t d = shape.size(); d-- > 1;) strides[d - 1] = strides[d] * shape[d];
  return strides;
}

struct WireTensor {
  std::string name;
  std::vector<std::int64_t> shape, strides;  // no strides: packed
  std::string storage;                       // key; empty: one of its own, with `data`
  std::string type = "FloatStorage";
  std::int64_t offset = 0, elements = -1;  // of the storage; -1: as the data has
  std::string data;                        // the storage's bytes
};

inline std::string bytes_of(const std::vector<float>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}

inline std::size_t element_size(const std::string& type) {
  if (type == "DoubleStorage" || type == "LongStorage") return 8;
  if (type == "HalfStorage" || type == "BFloat16Storage" || type == "ShortStorage") return 2;
  return type == "ByteStorage" || type == "BoolStorage" || type == "UntypedStorage" ? 1 : 4;
}

inline std::int64_t elements_of(const WireTensor& t) {
  return t.elements >= 0 ? t.elements : static_cast<std::int64_t>(t.data.size() / element_size(t.type));
}

inline PickleBytes& add_tensor(PickleBytes& p, const WireTensor& t, const std::string& key, bool legacy) {
  p.global("torch._utils", "_rebuild_tensor_v2").raw("(");
  p.storage(t.type, key, elements_of(t), legacy).integer(t.offset).tuple(t.shape);
  p.tuple(t.strides.empty() ? packed_strides(t.shape) : t.strides).boolean(false).hooks();
  return p.raw("tR");
}

// A state dict; keys of storages are the tensors' numbers.
inline PickleBytes& add_state_dict(PickleBytes& p, const std::vector<WireTensor>& tensors,
                                   bool legacy = false) {
  p.global("collections", "OrderedDict").raw(")R(");
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    p.text(tensors[i].name);
    add_tensor(p, tensors[i], tensors[i].storage.empty() ? std::to_string(i) : tensors[i].storage, legacy);
  }
  return p.raw("u");
}

// ---- zip archives ----

inline std::uint32_t crc32_of(const std::string& data) {
  std::uint32_t crc = ~0u;
  for (const char c : data) {
    crc ^= static_cast<unsigned char>(c);
    for (int k = 0; k < 8; ++k) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
  }
  return ~crc;
}

struct ZipMember {
  std::string name, data;
  std::uint16_t method = 0, flags = 0;
  std::uint32_t mode = 0;     // Unix file mode; 0: not said
  std::int64_t claimed = -1;  // uncompressed size; -1: the data's
  std::int64_t stored = -1;   // size in the archive; -1: the data's
  std::int64_t offset = -1;   // of the local header; -1: where it is
  bool wrong_checksum = false;
};

inline std::string zip_bytes(const std::vector<ZipMember>& members) {
  PickleBytes out;  // its little() serves here too
  std::string central;
  for (const ZipMember& m : members) {
    const std::uint64_t at = m.offset >= 0 ? static_cast<std::uint64_t>(m.offset) : out.bytes.size();
    const auto claimed = m.claimed >= 0 ? static_cast<std::uint64_t>(m.claimed) : m.data.size();
    const auto stored = m.stored >= 0 ? static_cast<std::uint64_t>(m.stored) : m.data.size();
    const std::uint32_t crc = crc32_of(m.data) + (m.wrong_checksum ? 1 : 0);
    const auto common = [&](PickleBytes& h) {
      h.little(m.flags, 2)
          .little(m.method, 2)
          .little(0, 4)
          .little(crc, 4)
          .little(stored, 4)
          .little(claimed, 4);
      h.little(m.name.size(), 2).little(0, 2);
    };
    out.raw("PK\x03\x04").little(20, 2);
    common(out);
    out.raw(m.name + m.data);
    PickleBytes c;
    c.raw("PK\x01\x02").little(m.mode ? 3 << 8 | 20 : 20, 2).little(20, 2);
    common(c);
    c.little(0, 2).little(0, 2).little(0, 2).little(std::uint64_t{m.mode} << 16, 4).little(at, 4).raw(m.name);
    central += c.bytes;
  }
  const std::size_t begin = out.bytes.size();
  out.raw(central).raw("PK\x05\x06").little(0, 4).little(members.size(), 2).little(members.size(), 2);
  return out.little(central.size(), 4).little(begin, 4).little(0, 2).bytes;
}

// ---- whole files ----

// Members besides data.pkl, one for each storage that has data.
inline std::vector<ZipMember> torch_members(const std::string& pickle, const std::vector<WireTensor>& tensors,
                                            const std::string& folder = "archive/") {
  std::vector<ZipMember> members{{folder + "data.pkl", pickle}};
  for (std::size_t i = 0; i < tensors.size(); ++i)
    if (!tensors[i].data.empty())
      members.push_back(
          {folder + "data/" + (tensors[i].storage.empty() ? std::to_string(i) : tensors[i].storage),
           tensors[i].data});
  members.push_back({folder + "version", "3\n"});
  return members;
}

inline std::string torch_zip(const std::vector<WireTensor>& tensors) {
  PickleBytes p;
  add_state_dict(p.proto(), tensors).raw(".");
  return zip_bytes(torch_members(p.bytes, tensors));
}

inline std::string legacy_head(bool little_endian = true, std::int64_t version = 1001) {
  PickleBytes p;
  p.proto().raw(std::string("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 13));
  p.proto().integer(version).raw(".");
  p.proto().raw("}(").text("protocol_version").integer(version).text("little_endian").boolean(little_endian);
  return p.raw("u.").bytes;
}

inline std::string legacy_storages(const std::vector<WireTensor>& tensors) {
  PickleBytes p;
  p.proto().raw("](");
  for (std::size_t i = 0; i < tensors.size(); ++i)
    if (!tensors[i].data.empty()) p.text(tensors[i].storage.empty() ? std::to_string(i) : tensors[i].storage);
  p.raw("e.");
  for (const WireTensor& t : tensors)
    if (!t.data.empty()) p.little(t.data.size() / element_size(t.type), 8).raw(t.data);
  return p.bytes;
}

inline std::string torch_legacy(const std::vector<WireTensor>& tensors) {
  PickleBytes p;
  add_state_dict(p.proto(), tensors, true).raw(".");
  return legacy_head() + p.bytes + legacy_storages(tensors);
}

}  // namespace frcnn::test
