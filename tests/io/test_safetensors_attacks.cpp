// Files that lie. Every one must give an error that names the file, soon, within bounded memory, and no
// sanitizer report.
#include <cstdint>
#include <sys/stat.h>

#include "bounds.h"
#include "model_io/safetensors.h"
#include "scratch.h"

namespace frcnn {
namespace {

std::string with_length(std::uint64_t length, const std::string& rest) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + rest;
}

std::string file_of(const std::string& header, std::size_t data_bytes) {
  return with_length(header.size(), header + std::string(data_bytes, '\1'));
}

std::string tensor(const std::string& shape, const std::string& offsets, const std::string& dtype = "F32") {
  return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

std::string one(const std::string& shape, const std::string& offsets, const std::string& dtype = "F32") {
  return R"({"x":)" + tensor(shape, offsets, dtype) + "}";
}

std::string two(const std::string& first, const std::string& second) {
  return R"({"x":)" + tensor("[2]", first) + R"(,"y":)" + tensor("[2]", second) + "}";
}

// Both ways in: from a file and from memory, where ASan guards the ends of the buffer.
void refused(const std::string& bytes, const std::string& why, ErrorCode code = ErrorCode::bad_file) {
  scratch::Folder folder;
  scratch::write(folder / "attack.safetensors", bytes);
  const auto open = [&] { SafetensorsFile::open(folder / "attack.safetensors"); };
  scratch::check_error([&] { test::within_bounds(bytes.size(), open); }, code,
                       {folder / "attack.safetensors", why});
  CHECK(folder.files() == 1);
  const std::vector<char> exact(bytes.begin(), bytes.end());
  const auto parse = [&] {
    SafetensorsFile::parse({reinterpret_cast<const std::byte*>(exact.data()), exact.size()}, "mem");
  };
  scratch::check_error([&] { test::within_bounds(bytes.size(), parse); }, code, {"mem"});
}

void accepted(const std::string& bytes) {
  const auto file = SafetensorsFile::parse({reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()}, "mem");
  CHECK(file->path() == "mem");
}

}  // namespace

TEST_CASE("safetensors attack: the bases of the attacks are themselves legal") {
  accepted(file_of(one("[2]", "[0,8]"), 8));
  accepted(file_of(two("[0,8]", "[8,16]"), 16));
  accepted(file_of(two("[8,16]", "[0,8]"), 16));
  accepted(file_of(one("[2]", "[0,8]") + "  \n ", 8));
  accepted(file_of(one("[]", "[0,4]"), 4));
  accepted(file_of("{}", 0));
  accepted(file_of(R"({"__metadata__":{"a":"b"}})", 0));
  accepted(file_of(one("[0,9223372036854775807,9223372036854775807]", "[0,0]"), 0));
}

TEST_CASE("safetensors attack: names without number cost more memory than the file has bytes") {
  const auto many = [](int count, const std::string& value) {
    std::string text;
    for (int i = 0; i < count; ++i) text += (i ? ",\"t" : "\"t") + std::to_string(i) + "\":" + value;
    return text;
  };
  const std::string empty = tensor("[0]", "[0,0]");
  accepted(file_of("{" + many(1 << 17, empty) + "}", 0));
  refused(file_of("{" + many((1 << 17) + 1, empty) + "}", 0), "more than 131072 tensors");
  accepted(file_of("{\"__metadata__\":{" + many(10000, "\"\"") + "}}", 0));
  refused(file_of("{\"__metadata__\":{" + many(10001, "\"\"") + "}}", 0),
          "more than 10000 entries of __metadata__");
}

TEST_CASE("safetensors attack: truncated at every byte") {
  scratch::Folder folder;
  const float values[4] = {1, 2, 3, 4};
  const StoredTensor tensors[] = {{"a", DType::f32, {3}, values, 12}, {"b", DType::u8, {1, 1}, values, 1}};
  write_safetensors(folder / "whole", tensors, {{"k", "v"}});
  const std::string whole = scratch::read(folder / "whole");
  CHECK(SafetensorsFile::open(folder / "whole")->tensors().size() == 2);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    INFO("length " << length);
    scratch::write(folder / "part", whole.substr(0, length));
    scratch::check_error([&] { SafetensorsFile::open(folder / "part"); }, ErrorCode::bad_file, {folder / "part"});
  }
}

TEST_CASE("safetensors attack: header length") {
  refused(with_length(~0ull, "{}"), "18446744073709551615");
  refused(with_length(1ull << 63, "{}"), "9223372036854775808");
  refused(with_length(100'000'001, "{}"), "100000001");
  refused(with_length(100'000'000, "{}"), "claims 100000000 bytes, the file has 2");
  refused(with_length(3, "{}"), "claims 3 bytes, the file has 2");
  refused(with_length(0, "{}"), "does not begin with '{'");
  refused(with_length(1, "{}"), "not JSON");
  refused("\x89PNG\r\n\x1a\nmore", "not a safetensors file");
  refused(std::string(4096, '\0'), "does not begin with '{'");
}

TEST_CASE("safetensors attack: not the JSON that the format has") {
  refused(file_of(R"( {"x":1})", 0), "does not begin with '{'");
  refused(file_of(R"([])", 0), "does not begin");
  refused(file_of(R"({"x":1})", 0), "'x': a number");
  refused(file_of(R"({"x":null})", 0), "'x': null");
  refused(file_of(R"({"x":true})", 0), "a boolean");
  refused(file_of(R"({"x":"F32"})", 0), "a string");
  refused(file_of(R"({"x":[]})", 0), "an array");
  refused(file_of(R"({"x":{}})", 0), "'x' lacks");
  refused(file_of(R"({"x":{"dtype":"F32","shape":[2]}})", 8), "'x' lacks");
  refused(file_of(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1}})", 8), "unknown key 'more'");
  refused(file_of(R"({"x":{"dtype":{"a":1},"shape":[2],"data_offsets":[0,8]}})", 8), "an object");
  refused(file_of(R"({"x":{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]}})", 8), "an array");
  refused(file_of(R"({"x":{"dtype":"F32","shape":{"0":2},"data_offsets":[0,8]}})", 8), "an object");
  refused(file_of(R"({"x":{"dtype":"F32","shape":["2"],"data_offsets":[0,8]}})", 8), "a string");
  refused(file_of(R"({"__metadata__":{"a":1}})", 0), "__metadata__");
  refused(file_of(R"({"__metadata__":{"a":{"b":"c"}}})", 0), "__metadata__");
  refused(file_of(R"({"__metadata__":"text"})", 0), "__metadata__");
  refused(file_of(R"({} {})", 0), "not JSON");
  refused(file_of(R"({"x")", 0), "not JSON");
  refused(file_of("{\"\xff\xfe\":1}", 0), "not JSON");
  refused(file_of(std::string("{\"x\0\":{}}", 9), 0), "not JSON");
  refused(file_of(R"({"x":1e999})", 0), "");
  for (const char open : {'[', '{'}) {
    std::string deep = "{\"x\":";
    for (int i = 0; i < 200000; ++i) deep += open == '[' ? "[" : "{\"a\":";
    refused(file_of(deep, 0), "'x'");
  }
}

TEST_CASE("safetensors attack: names twice") {
  const std::string x = R"("x":)" + tensor("[2]", "[0,8]");
  refused(file_of("{" + x + "," + x + "}", 8), "tensor 'x' twice");
  refused(file_of(R"({"x":)" + tensor("[2]", "[0,8]") + R"(,"\u0078":)" + tensor("[2]", "[8,16]") + "}", 16), "twice");
  refused(file_of(R"({"__metadata__":{},"__metadata__":{}})", 0), "__metadata__ twice");
  refused(file_of(R"({"__metadata__":{"k":"1","k":"2"}})", 0), "'k' twice");
  refused(file_of(R"({"x":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8), "'dtype' twice");
}

TEST_CASE("safetensors attack: types") {
  refused(file_of(one("[2]", "[0,8]", "F33"), 8), "tensor 'x' has the element type 'F33'");
  refused(file_of(one("[2]", "[0,8]", "f32"), 8), "'f32'");
  refused(file_of(one("[2]", "[0,8]", ""), 8), "''");
  refused(file_of(one("[8]", "[0,8]", "BOOL"), 8), "'BOOL', which is not supported", ErrorCode::unsupported);
  refused(file_of(one("[4]", "[0,8]", "I16"), 8), "'I16', which is not supported", ErrorCode::unsupported);
}

TEST_CASE("safetensors attack: numbers") {
  refused(file_of(one("[-2]", "[0,8]"), 8), "negative number -2");
  refused(file_of(one("[2]", "[-8,0]"), 8), "negative number -8");
  refused(file_of(one("[2.0]", "[0,8]"), 8), "the number 2.0");
  refused(file_of(one("[2]", "[0,8e0]"), 8), "the number 8e0");
  refused(file_of(one("[18446744073709551615]", "[0,8]"), 8), "too large");
  refused(file_of(one("[2]", "[0,18446744073709551615]"), 8), "too large");
  refused(file_of(one("[99999999999999999999999]", "[0,8]"), 8), "");
  refused(file_of(one("[4611686018427387904,4]", "[0,8]"), 8), "overflows");
  refused(file_of(one("[4294967296,4294967296,2]", "[0,0]"), 0), "overflows");
  refused(file_of(one("[9223372036854775807]", "[0,8]"), 8), "overflows");
  refused(file_of(one("[3]", "[0,8]"), 8), "takes 12 bytes, its data has 8");
  refused(file_of(one("[0]", "[0,8]"), 8), "takes 0 bytes, its data has 8");
  std::string many = "[1";
  for (int i = 0; i < 40; ++i) many += ",1";
  refused(file_of(one(many + "]", "[0,4]"), 4), "more than 32 dimensions");
}

TEST_CASE("safetensors attack: offsets") {
  refused(file_of(one("[2]", "[0,8]"), 7), "bytes 0..8, the file has 7");
  refused(file_of(one("[2]", "[0,8]"), 9), "1 bytes after the last tensor");
  refused(file_of(one("[2]", "[1,9]"), 9), "begins at byte 1, the one before it ends at 0 (hole)");
  refused(file_of(one("[2]", "[8,0]"), 8), "ends before it begins");
  refused(file_of(one("[2]", "[0]"), 8), "it holds 1");
  refused(file_of(one("[2]", "[0,8,8]"), 8), "it holds more");
  refused(file_of(one("[2]", "[]"), 8), "it holds 0");
  refused(file_of(two("[0,8]", "[4,12]"), 12), "tensor 'y': its data begins at byte 4, the one before it ends at 8 (overlap)");
  refused(file_of(two("[0,8]", "[0,8]"), 8), "(overlap)");
  refused(file_of(two("[0,8]", "[9,17]"), 17), "(hole)");
  refused(file_of("{}", 1), "1 bytes after the last tensor");
  refused(file_of(one("[9223372036854775800]", "[0,9223372036854775800]", "U8"), 8), "the file has 8");
}

TEST_CASE("safetensors attack: messages carry no control codes and no novel") {
  const std::string header = R"({"\u001b[31m)" + std::string(100000, 'n') + R"(":1})";
  const Error error = scratch::error_of([&] {
    const std::string bytes = file_of(header, 0);
    SafetensorsFile::parse({reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()}, "mem");
  });
  const std::string message = error.what();
  CHECK(message.find('\x1b') == std::string::npos);
  CHECK(message.find("\\x1b[31m") != std::string::npos);
  CHECK(message.size() < 500);
}

TEST_CASE("safetensors: what is no file at all") {
  scratch::Folder folder;
  const auto refuse = [](const std::string& path, ErrorCode code, const std::string& why) {
    scratch::check_error([&] { SafetensorsFile::open(path); }, code, {path, why});
  };
  refuse(folder / "missing", ErrorCode::io, std::strerror(ENOENT));
  refuse(folder.path(), ErrorCode::io, "not a regular file");
  refuse("/dev/null", ErrorCode::io, "not a regular file");
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  refuse(folder / "pipe", ErrorCode::io, "not a regular file");
  scratch::write(folder / "empty", "");
  refuse(folder / "empty", ErrorCode::bad_file, "empty");
}

}  // namespace frcnn
