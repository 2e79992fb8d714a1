#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <sys/wait.h>

#include "model_io/safetensors.h"
#include "scratch.h"

namespace frcnn {
namespace {

struct Made {
  std::vector<std::vector<std::byte>> bytes;
  std::vector<StoredTensor> tensors;
};

// One tensor of every type and of several ranks, filled with random bits: NaNs, infinities and subnormals included.
Made every_dtype() {
  const std::vector<std::vector<std::int64_t>> shapes{{}, {3}, {0, 5}, {2, 3, 1, 2}, {1, 2, 1, 2, 3, 1}};
  std::mt19937 random(7);
  Made made;
  for (const DType dtype : {DType::u8, DType::f32, DType::f16, DType::bf16, DType::f64, DType::i32, DType::i64})
    for (const auto& shape : shapes) {
      const auto elements = std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
      made.bytes.emplace_back(static_cast<std::size_t>(elements) * size_of(dtype));
      for (std::byte& b : made.bytes.back()) b = static_cast<std::byte>(random());
      made.tensors.push_back({std::string(name_of(dtype)) + "/rank \"" + std::to_string(shape.size()) + "\" \xc3\xa9", dtype,
                              shape, made.bytes.back().data(), made.bytes.back().size()});
    }
  return made;
}

const std::map<std::string, std::string> some_metadata{{"note", "two\nlines"}, {"json", R"({"a":[1,2]})"}, {"empty", ""}};

}  // namespace

TEST_CASE("safetensors: every type comes back bit for bit") {
  scratch::Folder folder;
  const Made made = every_dtype();
  write_safetensors(folder / "a", made.tensors, some_metadata);
  const auto file = SafetensorsFile::open(folder / "a");
  CHECK(file->path() == folder / "a");
  CHECK(file->metadata() == some_metadata);
  REQUIRE(file->tensors().size() == made.tensors.size());
  for (std::size_t i = 0; i < made.tensors.size(); ++i) {
    const StoredTensor& want = made.tensors[i];
    const StoredTensor& got = file->tensors()[i];
    INFO(want.name);
    CHECK(got.name == want.name);
    CHECK(got.dtype == want.dtype);
    CHECK(got.shape == want.shape);
    REQUIRE(got.bytes == want.bytes);
    CHECK((want.bytes == 0 || std::memcmp(got.data, want.data, want.bytes) == 0));
    CHECK(file->find(want.name) == &got);
  }
  CHECK(file->find("no such") == nullptr);
  CHECK(folder.files() == 1);

  write_safetensors(folder / "b", file->tensors(), file->metadata());
  CHECK(scratch::read(folder / "b") == scratch::read(folder / "a"));
}

TEST_CASE("safetensors: the data of a written file is aligned to 64 bytes") {
  scratch::Folder folder;
  const float value = 1;
  for (int length = 1; length < 70; ++length) {
    const StoredTensor tensor{std::string(static_cast<std::size_t>(length), 'n'), DType::f32, {1}, &value, 4};
    write_safetensors(folder / "a", {&tensor, 1}, {});
    const auto file = SafetensorsFile::open(folder / "a");
    REQUIRE(reinterpret_cast<std::uintptr_t>(file->tensors().at(0).data) % 64 == 0);
  }
}

TEST_CASE("safetensors: a file without tensors is legal") {
  scratch::Folder folder;
  write_safetensors(folder / "a", {}, {});
  CHECK(SafetensorsFile::open(folder / "a")->tensors().empty());
}

TEST_CASE("safetensors: pages given back read the same again, neighbours too") {
  scratch::Folder folder;
  std::vector<std::uint8_t> bytes(300000);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i * 31 >> 3);
  const StoredTensor tensors[] = {{"a", DType::u8, {100001}, bytes.data(), 100001},
                                  {"b", DType::u8, {199999}, bytes.data() + 100001, 199999}};
  write_safetensors(folder / "a", tensors, {});
  const auto file = SafetensorsFile::open(folder / "a");
  for (const StoredTensor& tensor : file->tensors()) {
    file->release_pages(tensor);
    file->release_pages(tensor);
  }
  CHECK(std::memcmp(file->find("a")->data, bytes.data(), 100001) == 0);
  CHECK(std::memcmp(file->find("b")->data, bytes.data() + 100001, 199999) == 0);

  const std::string copy = scratch::read(folder / "a");  // not mapped: giving back must not lose it
  const auto parsed = SafetensorsFile::parse({reinterpret_cast<const std::byte*>(copy.data()), copy.size()}, "copy");
  parsed->release_pages(*parsed->find("b"));
  CHECK(std::memcmp(parsed->find("b")->data, bytes.data() + 100001, 199999) == 0);
}

TEST_CASE("safetensors: a mapped file may be replaced by a new one") {
  scratch::Folder folder;
  const float old_value = 1, new_value = 2;
  const StoredTensor before{"x", DType::f32, {1}, &old_value, 4}, after{"x", DType::f32, {1}, &new_value, 4};
  write_safetensors(folder / "a", {&before, 1}, {});
  const auto file = SafetensorsFile::open(folder / "a");
  write_safetensors(folder / "a", {&after, 1}, {});
  CHECK(*static_cast<const float*>(file->find("x")->data) == 1);
  CHECK(*static_cast<const float*>(SafetensorsFile::open(folder / "a")->find("x")->data) == 2);
}

TEST_CASE("safetensors: what cannot be written says so and leaves the old file") {
  scratch::Folder folder;
  scratch::write(folder / "a", "old");
  const float values[2] = {};
  const auto refused = [&](std::vector<StoredTensor> tensors, const std::string& what) {
    scratch::check_error([&] { write_safetensors(folder / "a", tensors, {}); }, ErrorCode::invalid_argument,
                         {folder / "a", what});
  };
  const StoredTensor good{"x", DType::f32, {2}, values, 8};
  refused({good, good}, "'x' is given twice");
  refused({{"x", DType::f32, {3}, values, 8}}, "8 bytes");
  refused({{"x", DType::f32, {-2}, values, 8}}, "8 bytes");
  refused({{"x", DType::f32, {std::numeric_limits<std::int64_t>::max(), 4}, values, 8}}, "8 bytes");
  refused({{"__metadata__", DType::f32, {2}, values, 8}}, "name");
  refused({{"\xff", DType::f32, {2}, values, 8}}, "UTF-8");
  scratch::check_error([&] { write_safetensors(folder / "a", {&good, 1}, {{"k", "\xff"}}); }, ErrorCode::invalid_argument,
                       {"UTF-8"});
  CHECK(scratch::read(folder / "a") == "old");
  CHECK(folder.files() == 1);
}

// A second reader that shares no code with ours: the format as its description has it, in a few lines of Python.
TEST_CASE("safetensors: another program reads what we write") {
  if (std::system("python3 -c 'import struct, json' >/dev/null 2>&1") != 0) {
    WARN("SKIPPED: python3 is not here to read the file a second time");
    return;
  }
  scratch::Folder folder;
  const Made made = every_dtype();
  write_safetensors(folder / "a", made.tensors, some_metadata);
  scratch::write(folder / "read.py", R"(import json, struct, sys
raw = open(sys.argv[1], 'rb').read()
(n,) = struct.unpack('<Q', raw[:8])
header = json.loads(raw[8:8 + n])
data = raw[8 + n:]
meta = header.pop('__metadata__')
sizes = {'F32': 4, 'F16': 2, 'BF16': 2, 'F64': 8, 'I32': 4, 'I64': 8, 'U8': 1}
at, out = 0, []
for name, t in header.items():
    begin, end = t['data_offsets']
    assert begin == at, (name, begin, at)
    size = sizes[t['dtype']]
    for d in t['shape']: size *= d
    assert end - begin == size, (name, size)
    at = end
    out.append([name, t['dtype'], t['shape'], data[begin:end].hex()])
assert at == len(data) and (8 + n) % 64 == 0
json.dump({'meta': meta, 'tensors': out}, open(sys.argv[2], 'w'))
)");
  const std::string command = "python3 '" + folder / "read.py" + "' '" + folder / "a" + "' '" + folder / "out" + "'";
  REQUIRE(std::system(command.c_str()) == 0);
  const auto seen = nlohmann::json::parse(scratch::read(folder / "out"));
  CHECK(seen["meta"].get<std::map<std::string, std::string>>() == some_metadata);
  REQUIRE(seen["tensors"].size() == made.tensors.size());
  for (std::size_t i = 0; i < made.tensors.size(); ++i) {
    const StoredTensor& tensor = made.tensors[i];
    std::string dtype(name_of(tensor.dtype)), hex;
    for (char& c : dtype) c = static_cast<char>(std::toupper(c));
    for (const std::byte b : made.bytes[i]) {
      hex += "0123456789abcdef"[std::to_integer<int>(b) >> 4];
      hex += "0123456789abcdef"[std::to_integer<int>(b) & 15];
    }
    CHECK(seen["tensors"][i] == nlohmann::json({tensor.name, dtype, tensor.shape, hex}));
  }
}

}  // namespace frcnn
