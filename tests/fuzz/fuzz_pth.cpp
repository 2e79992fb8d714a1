// Any bytes as a PyTorch checkpoint: an Error, or tensors that lie where they should. The mutator knows the
// format: it takes an archive apart, changes the pickle instruction by instruction or the directory field by
// field, and puts it together again with right checksums, so that damage reaches what lies behind them.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "frcnn/error.h"
#include "io/torch_wire.h"
#include "model_io/convert/names.h"
#include "model_io/convert/torch_file.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace {

using frcnn::test::ZipMember;

// ---- pickles as lists of instructions ----

struct Instruction {
  std::string bytes;         // with its argument
  std::size_t argument = 1;  // where that begins
};

std::uint64_t little(const std::string& bytes, std::size_t at, std::size_t count) {
  std::uint64_t value = 0;
  for (std::size_t i = count; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

// Bytes of the instruction at `at`; what is cut off or unknown is an instruction of one byte.
std::size_t length_of(const std::string& bytes, std::size_t at) {
  const std::size_t left = bytes.size() - at;
  const auto prefixed = [&](std::size_t count) {
    if (left < 1 + count) return std::size_t{1};
    const std::uint64_t payload = little(bytes, at + 1, count);
    return payload <= left - 1 - count ? static_cast<std::size_t>(1 + count + payload) : std::size_t{1};
  };
  const auto fixed = [&](std::size_t count) { return left < 1 + count ? std::size_t{1} : 1 + count; };
  switch (static_cast<unsigned char>(bytes[at])) {
    case 0x80:
    case 'K':
    case 'q':
    case 'h':
      return fixed(1);
    case 'M':
      return fixed(2);
    case 'J':
    case 'r':
    case 'j':
      return fixed(4);
    case 'G':
    case 0x95:
      return fixed(8);
    case 0x8a:
    case 'U':
    case 'C':
    case 0x8c:
      return prefixed(1);
    case 0x8b:
    case 'T':
    case 'B':
    case 'X':
      return prefixed(4);
    case 0x8d:
    case 0x8e:
    case 0x96:
      return prefixed(8);
    case 'c': {
      const auto first = bytes.find('\n', at);
      const auto second = first == std::string::npos ? first : bytes.find('\n', first + 1);
      return second == std::string::npos ? 1 : second + 1 - at;
    }
    default:
      return 1;
  }
}

std::vector<Instruction> instructions(const std::string& bytes) {
  std::vector<Instruction> list;
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t length = length_of(bytes, at);
    list.push_back({bytes.substr(at, length)});
    at += length;
  }
  return list;
}

// The instructions that a reader may meet, good and bad, with arguments.
const std::vector<std::string>& spare_instructions() {
  using namespace std::string_literals;
  static const std::vector<std::string> list{"("s,
                                             "."s,
                                             "0"s,
                                             "1"s,
                                             "2"s,
                                             "N"s,
                                             "\x88"s,
                                             "\x89"s,
                                             ")"s,
                                             "t"s,
                                             "\x85"s,
                                             "\x86"s,
                                             "\x87"s,
                                             "]"s,
                                             "a"s,
                                             "e"s,
                                             "l"s,
                                             "}"s,
                                             "s"s,
                                             "u"s,
                                             "d"s,
                                             "\x8f"s,
                                             "\x90"s,
                                             "\x91"s,
                                             "R"s,
                                             "\x81"s,
                                             "b"s,
                                             "Q"s,
                                             "\x93"s,
                                             "\x94"s,
                                             "K\x06"s,
                                             "M\xff\xff"s,
                                             "J\xff\xff\xff\xff"s,
                                             "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"s,
                                             "\x8a\x00"s,
                                             "\x8b\x01\x00\x00\x00\x80"s,
                                             "G\x7f\xf0\x00\x00\x00\x00\x00\x00"s,
                                             "\x80\x04"s,
                                             "\x95\x00\x00\x00\x00\x00\x00\x00\x00"s,
                                             "h\x00"s,
                                             "j\x01\x00\x00\x00"s,
                                             "q\x05"s,
                                             "r\x00\x01\x00\x00"s,
                                             "U\x01x"s,
                                             "C\x01x"s,
                                             "\x8c\x07storage"s,
                                             "X\x05\x00\x00\x00model"s,
                                             "\x8d\x01\x00\x00\x00\x00\x00\x00\x00z"s,
                                             "ccollections\nOrderedDict\n"s,
                                             "ctorch._utils\n_rebuild_tensor\n"s,
                                             "ctorch._utils\n_rebuild_tensor_v2\n"s,
                                             "ctorch._utils\n_rebuild_tensor_v3\n"s,
                                             "ctorch._utils\n_rebuild_parameter\n"s,
                                             "ctorch\nSize\n"s,
                                             "ctorch\ndevice\n"s,
                                             "ctorch\nfloat32\n"s,
                                             "ctorch\nHalfStorage\n"s,
                                             "ctorch\nDoubleStorage\n"s,
                                             "ctorch.storage\nUntypedStorage\n"s,
                                             "ctorch\nBFloat16Storage\n"s,
                                             "ctorch\nLongStorage\n"s,
                                             "cos\nsystem\n"s,
                                             "i"s,
                                             "o"s};
  return list;
}

class Mutator {
 public:
  explicit Mutator(unsigned seed) : random_(seed) {}

  std::string pickle(const std::string& bytes) {
    std::vector<Instruction> list = instructions(bytes);
    for (std::size_t changes = 1 + below(3); changes > 0; --changes) change(list);
    std::string out;
    for (const Instruction& i : list) out += i.bytes;
    return out;
  }

  void archive(std::vector<ZipMember>& members) {
    if (members.empty()) return;
    if (below(3) != 0) {  // mostly the pickle
      for (ZipMember& m : members)
        if (m.name.ends_with("data.pkl")) m.data = pickle(m.data);
      return;
    }
    ZipMember& m = members[below(members.size())];
    switch (below(10)) {
      case 0:
        m.name = mutate(m.name);
        break;
      case 1:
        m.data = mutate(m.data);
        break;
      case 2:
        m.mode = below(2) ? 0120777 : static_cast<std::uint32_t>(random_()) & 0177777;
        break;
      case 3:
        m.method = static_cast<std::uint16_t>(below(2) ? 8 : random_());
        break;
      case 4:
        m.claimed = below(2) ? static_cast<std::int64_t>(below(64)) : 0xfffffff0;
        break;
      case 5:
        m.stored = below(2) ? static_cast<std::int64_t>(below(64)) : 0xfffffff0;
        break;
      case 6:
        m.offset = static_cast<std::int64_t>(below(256));
        break;
      case 7:
        m.wrong_checksum = true;
        break;
      case 8:
        members.push_back(ZipMember(m));
        break;
      default:
        members.push_back({"archive/" + std::string(below(2) ? "byteorder" : "constants.pkl"), "big"});
    }
  }

 private:
  std::size_t below(std::size_t count) { return random_() % count; }

  std::string mutate(std::string bytes) {
    const std::size_t size = bytes.size();
    bytes.resize(size + 16);
    bytes.resize(LLVMFuzzerMutate(reinterpret_cast<std::uint8_t*>(bytes.data()), size, bytes.size()));
    return bytes;
  }

  void change(std::vector<Instruction>& list) {
    if (list.empty()) list.push_back({"."});
    const std::size_t at = below(list.size()), other = below(list.size());
    const auto place = list.begin() + static_cast<std::ptrdiff_t>(at);
    switch (below(7)) {
      case 0:
        list.erase(place);
        break;
      case 1:
        list.insert(place, Instruction(list[other]));
        break;
      case 2:
        std::swap(list[at], list[other]);
        break;
      case 3:
        list.insert(place, {spare_instructions()[below(spare_instructions().size())]});
        break;
      case 4:
        list[at] = {spare_instructions()[below(spare_instructions().size())]};
        break;
      case 5: {  // a run of them, elsewhere
        const std::size_t end = std::min(at + 1 + below(16), list.size());
        const std::vector<Instruction> run(place, list.begin() + static_cast<std::ptrdiff_t>(end));
        list.insert(list.begin() + static_cast<std::ptrdiff_t>(other), run.begin(), run.end());
        break;
      }
      default: {
        Instruction& i = list[at];
        if (i.bytes.size() > 1) i.bytes = i.bytes[0] + mutate(i.bytes.substr(1));
      }
    }
  }

  std::minstd_rand random_;
};

// The members of a plain archive, as far as they can be told: what the mutator can put together again.
std::vector<ZipMember> members_of(const std::string& bytes) {
  std::vector<ZipMember> members;
  for (std::size_t at = 0; bytes.size() - at >= 30 && bytes.compare(at, 4, "PK\x03\x04") == 0;) {
    const std::size_t size = little(bytes, at + 18, 4), name = little(bytes, at + 26, 2),
                      extra = little(bytes, at + 28, 2);
    const std::size_t data = at + 30 + name + extra;
    if (data > bytes.size() || size > bytes.size() - data) break;
    members.push_back({bytes.substr(at + 30, name), bytes.substr(data, size)});
    at = data + size;
    // PyTorch's writer appends descriptors.
    if (bytes.compare(at, 4, "PK\x07\x08") == 0) at = std::min(at + 16, bytes.size());
  }
  return members;
}

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  Mutator mutator(seed);
  if (seed % 5 == 0) return LLVMFuzzerMutate(data, size, max_size);
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  std::string out;
  if (bytes.starts_with("PK")) {
    std::vector<ZipMember> members = members_of(bytes);
    mutator.archive(members);
    out = frcnn::test::zip_bytes(members);
  } else {
    out = mutator.pickle(bytes);  // the older form: pickles, then numbers that look like instructions
  }
  if (out.size() > max_size) return LLVMFuzzerMutate(data, size, max_size);
  std::memcpy(data, out.data(), out.size());
  return out.size();
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  try {
    if (!frcnn::looks_like_torch_file(bytes)) return 0;
    const frcnn::TorchFile file = frcnn::read_torch_file(bytes, "fuzz");
    unsigned touched = 0;
    std::vector<std::string> names;
    for (const frcnn::TorchFileTensor& tensor : file.tensors) {
      std::size_t wanted = frcnn::size_of(tensor.dtype);
      for (const std::int64_t d : tensor.shape) wanted *= static_cast<std::size_t>(d);
      if (tensor.bytes != wanted) std::abort();
      for (std::size_t i = 0; i < tensor.bytes; ++i)
        touched += static_cast<const std::uint8_t*>(tensor.data)[i];
      names.push_back(tensor.name);
    }
    if (touched == ~0u) std::abort();
    if (frcnn::scheme_names(names, "fuzz").tensors.size() != names.size()) std::abort();
  } catch (const frcnn::Error&) {
  }
  return 0;
}
