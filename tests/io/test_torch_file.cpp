#include <cstring>
#include <string>

#include "catch.h"
#include "graph/dtype.h"
#include "model_io/convert/torch_file.h"
#include "scratch.h"
#include "torch_wire.h"

using namespace frcnn;
using scratch::check_error;
using test::bytes_of;
using test::PickleBytes;
using test::WireTensor;

namespace {

// The result with the bytes that it may point into.
struct Read {
  std::string bytes;
  TorchFile file;
  explicit Read(std::string b) : bytes(std::move(b)) {
    file = read_torch_file({reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()}, "f.pth");
  }
  std::vector<float> values(std::size_t i) const {
    const TorchFileTensor& t = file.tensors.at(i);
    std::vector<float> out(t.bytes / size_of(t.dtype));
    to_f32(t.data, t.dtype, out.size(), out.data());
    return out;
  }
};

std::string raw(const auto& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(values[0]));
}

// A zip of these tensors whose pickle `change` writes around the state dict.
template <typename Around>
std::string zip_around(const std::vector<WireTensor>& tensors, const Around& around) {
  PickleBytes p;
  around(p.proto());
  return test::zip_bytes(test::torch_members(p.raw(".").bytes, tensors));
}

const std::vector<WireTensor> two{
    {"a.weight", {2, 3}, {}, "", "FloatStorage", 0, -1, bytes_of({1, 2, 3, 4, 5, 6})},
    {"a.bias", {2}, {}, "", "FloatStorage", 0, -1, bytes_of({-1, 0.5f})}};

void check_two(const Read& read) {
  REQUIRE(read.file.tensors.size() == 2);
  CHECK(read.file.tensors[0].name == "a.weight");
  CHECK(read.file.tensors[0].shape == std::vector<std::int64_t>{2, 3});
  CHECK(read.values(0) == std::vector<float>{1, 2, 3, 4, 5, 6});
  CHECK(read.values(1) == std::vector<float>{-1, 0.5f});
}

}  // namespace

TEST_CASE("torch file: a state dict in both forms") {
  const Read zip(test::torch_zip(two)), legacy(test::torch_legacy(two));
  check_two(zip);
  check_two(legacy);
  CHECK(zip.file.zip);
  CHECK_FALSE(legacy.file.zip);
  // The older form's tensors stay where they are.
  CHECK_FALSE(legacy.file.tensors[0].owner);
}

TEST_CASE("torch file: element types") {
  const std::vector<std::uint16_t> half{0x3c00, 0xc100}, brain{0x3f80, 0xc020};
  const std::vector<double> wide{0.1, -3};
  const std::vector<std::int64_t> whole{7};
  std::vector<WireTensor> tensors{{"h", {2}, {}, "", "HalfStorage", 0, -1, raw(half)},
                                  {"b", {2}, {}, "", "BFloat16Storage", 0, -1, raw(brain)},
                                  {"d", {2}, {}, "", "DoubleStorage", 0, -1, raw(wide)},
                                  {"n", {}, {}, "", "LongStorage", 0, -1, raw(whole)}};
  for (const std::string& bytes : {test::torch_zip(tensors), test::torch_legacy(tensors)}) {
    const Read read(bytes);
    REQUIRE(read.file.tensors.size() == 3);
    CHECK(read.file.tensors[0].dtype == DType::f16);
    CHECK(read.file.tensors[1].dtype == DType::bf16);
    CHECK(read.file.tensors[2].dtype == DType::f64);
    CHECK(read.values(0) == std::vector<float>{1, -2.5f});
    CHECK(read.values(1) == std::vector<float>{1, -2.5f});
    CHECK(read.values(2) == std::vector<float>{0.1f, -3});
    REQUIRE(read.file.ignored.size() == 1);
    CHECK(read.file.ignored[0].find("'n': int64") != std::string::npos);
  }
}

TEST_CASE("torch file: strides, offsets and shared storages") {
  std::vector<float> numbers(24);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i);
  const std::vector<WireTensor> tensors{
      {"all", {24}, {}, "s", "FloatStorage", 0, 24, bytes_of(numbers)},
      {"transposed", {4, 6}, {1, 4}, "s", "FloatStorage", 0, 24, ""},
      {"part", {2, 3}, {6, 1}, "s", "FloatStorage", 7, 24, ""},
      {"every_third", {8}, {3}, "s", "FloatStorage", 2, 24, ""},
      {"permuted", {2, 3, 4}, {1, 2, 6}, "s", "FloatStorage", 0, 24, ""},
      {"expanded", {3, 2}, {0, 1}, "s", "FloatStorage", 4, 24, ""},
      {"one", {1, 2, 1}, {99, 1, 55}, "s", "FloatStorage", 20, 24, ""},  // strides of dimensions of one mean
                                                                         // nothing
      {"none", {0, 5}, {5, 1}, "s", "FloatStorage", 0, 24, ""},
      {"scalar", {}, {}, "s", "FloatStorage", 23, 24, ""}};
  for (const bool zip : {true, false}) {
    const Read read(zip ? test::torch_zip(tensors) : test::torch_legacy(tensors));
    REQUIRE(read.file.tensors.size() == tensors.size());
    CHECK(read.values(0) == numbers);
    std::vector<float> transposed;
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 6; ++j) transposed.push_back(static_cast<float>(i + 4 * j));
    CHECK(read.values(1) == transposed);
    CHECK(read.values(2) == std::vector<float>{7, 8, 9, 13, 14, 15});
    CHECK(read.values(3) == std::vector<float>{2, 5, 8, 11, 14, 17, 20, 23});
    std::vector<float> permuted;
    for (int i = 0; i < 2; ++i)
      for (int j = 0; j < 3; ++j)
        for (int k = 0; k < 4; ++k) permuted.push_back(static_cast<float>(i + 2 * j + 6 * k));
    CHECK(read.values(4) == permuted);
    CHECK(read.values(5) == std::vector<float>{4, 5, 4, 5, 4, 5});
    CHECK(read.values(6) == std::vector<float>{20, 21});
    CHECK(read.values(7).empty());
    CHECK(read.values(8) == std::vector<float>{23});
    CHECK(read.file.tensors[8].shape.empty());
  }
}

TEST_CASE("torch file: checkpoints around a state dict") {
  const auto nested = [&](std::vector<std::string> keys, bool more = true) {
    return zip_around(two, [&](PickleBytes& p) {
      for (const std::string& key : keys) {
        p.raw("}(");
        if (more) p.text("epoch").integer(6).text("optimizer").raw("}(").integer(4).text("x").raw("u");
        p.text(key);
      }
      test::add_state_dict(p, two);
      for (std::size_t i = 0; i < keys.size(); ++i) p.raw("u");
    });
  };
  for (const char* key : {"model", "state_dict", "model_state_dict", "net", "whatever"}) {
    INFO(key);
    const Read read(nested({key}));
    check_two(read);
    CHECK(read.file.facts.at("epoch") == "6");
    REQUIRE(read.file.ignored.size() == 1);
    CHECK(read.file.ignored[0].find("optimizer") != std::string::npos);
  }
  check_two(Read(nested({"state_dict", "model", "net"})));
  check_error([&] { Read(nested(std::vector<std::string>(9, "model"))); }, ErrorCode::bad_file,
              {"f.pth", "8 nested dictionaries"});

  WireTensor other = two[1];
  other.storage = "1";
  // "model" is preferred to another dictionary of tensors.
  check_two(Read(zip_around(two, [&](PickleBytes& p) {
    p.raw("}(").text("ema");
    test::add_state_dict(p, {other}).text("model");
    test::add_state_dict(p, two).raw("u");
  })));
  // Two that nobody named are not guessed at.
  check_error(
      [&] {
        Read(zip_around(two, [&](PickleBytes& p) {
          p.raw("}(").text("ema");
          test::add_state_dict(p, {other}).text("teacher");
          test::add_state_dict(p, two).raw("u");
        }));
      },
      ErrorCode::bad_model, {"no state dict", "'ema'", "'teacher'"});
  check_error([&] { Read(zip_around(two, [](PickleBytes& p) { p.raw("]"); })); }, ErrorCode::bad_model,
              {"a list"});
  check_error([&] { Read(zip_around(two, [](PickleBytes& p) { p.raw("}"); })); }, ErrorCode::bad_model,
              {"(none)"});
}

TEST_CASE("torch file: facts beside the weights, and the prefix of DataParallel") {
  const Read read(zip_around(two, [&](PickleBytes& p) {
    std::vector<WireTensor> tensors = two;
    for (WireTensor& t : tensors) t.name = "module." + t.name;
    p.raw("}(").text("session").integer(-1).text("model");
    test::add_state_dict(p, tensors)
        .text("pooling_mode")
        .text("align")
        .text("class_agnostic")
        .boolean(true)
        .raw("u");
  }));
  check_two(read);
  CHECK(read.file.facts.at("pooling_mode") == "align");
  CHECK(read.file.facts.at("class_agnostic") == "true");
  CHECK(read.file.facts.at("session") == "-1");
}

TEST_CASE("torch file: what older and newer versions write otherwise") {
  // Python 2: byte strings, an OrderedDict of a list of pairs with attributes, tensors of four arguments.
  check_two(Read(zip_around(two, [](PickleBytes& p) {
    p.global("collections", "OrderedDict").raw("(](");
    for (std::size_t i = 0; i < 2; ++i) {
      p.raw("](").old_text(two[i].name).global("torch._utils", "_rebuild_tensor").raw("(");
      p.raw("(")
          .old_text("storage")
          .global("torch.cuda", "FloatStorage")
          .old_text(std::to_string(i))
          .old_text("cuda:0");
      p.integer(test::elements_of(two[i])).raw("tQ").integer(0).tuple(two[i].shape);
      p.tuple(test::packed_strides(two[i].shape)).raw("tRe");
    }
    p.raw("etR}(").old_text("_metadata").global("collections", "OrderedDict").raw(")Rub");
  })));
  // Parameters, sizes as torch.Size, a device.
  check_two(Read(zip_around(two, [](PickleBytes& p) {
    p.raw("}(");
    for (std::size_t i = 0; i < 2; ++i) {
      p.text(two[i].name).global("torch._utils", "_rebuild_parameter").raw("(");
      p.global("torch._utils", "_rebuild_tensor_v2")
          .raw("(")
          .storage("FloatStorage", std::to_string(i), test::elements_of(two[i]));
      p.integer(0)
          .global("torch", "Size")
          .raw("(")
          .tuple(two[i].shape)
          .raw("tR")
          .tuple(test::packed_strides(two[i].shape));
      p.boolean(true).hooks().raw("tR").boolean(true).hooks().raw("tR");
    }
    p.text("where").global("torch", "device").raw("(").text("cuda").integer(0).raw("tRu");
  })));
  // Protocol 4: frames, short texts, memoized globals from the stack; and a tensor of an untyped storage.
  const auto short_text = [](PickleBytes& p, const std::string& value) {
    p.raw("\x8c").little(value.size(), 1).raw(value).raw("\x94");
  };
  PickleBytes p;
  p.proto(4).raw("\x95").little(0, 8).raw("}\x94(");
  for (std::size_t i = 0; i < 2; ++i) {
    short_text(p, two[i].name);
    short_text(p, "torch._utils");
    short_text(p, "_rebuild_tensor_v3");
    p.raw("\x93\x94((");
    short_text(p, "storage");
    short_text(p, "torch.storage");
    short_text(p, "UntypedStorage");
    p.raw("\x93\x94");
    short_text(p, std::to_string(i));
    short_text(p, "cpu");
    p.integer(static_cast<std::int64_t>(two[i].data.size())).raw("t\x94Q").integer(0).tuple(two[i].shape);
    p.tuple(test::packed_strides(two[i].shape)).boolean(false);
    p.global("collections", "OrderedDict").raw(")\x81").global("torch", "float32").raw("}t\x94R\x94");
  }
  check_two(Read(test::zip_bytes(test::torch_members(p.raw("u.").bytes, two))));
  // A view into a storage, as the older form had them.
  PickleBytes v;
  v.proto().raw("}(").text("a").global("torch._utils", "_rebuild_tensor").raw("((").text("storage");
  v.global("torch", "FloatStorage")
      .text("0")
      .text("cpu")
      .integer(6)
      .raw("(")
      .text("9")
      .integer(2)
      .integer(3)
      .raw("ttQ");
  v.integer(1).tuple({2}).tuple({1}).raw("tRu.");
  const Read view(test::legacy_head() + v.bytes + test::legacy_storages({two[0]}));
  CHECK(view.values(0) == std::vector<float>{4, 5});
}

TEST_CASE("torch file: archives of other versions, byte orders and kinds") {
  PickleBytes p;
  test::add_state_dict(p.proto(), two).raw(".");
  const auto with = [&](std::vector<test::ZipMember> more, const std::string& version = "3\n") {
    auto members = test::torch_members(p.bytes, two, "deep/");
    members.back().data = version;
    members.insert(members.end(), more.begin(), more.end());
    return test::zip_bytes(members);
  };
  check_two(Read(with({{"deep/byteorder", "little"}, {"deep/.data/serialization_id", "123"}})));
  check_two(Read(with({}, "2\n")));
  check_error(
      [&] {
        Read(with({{"deep/byteorder", "big"}}));
      },
      ErrorCode::unsupported, {"f.pth", "big-endian"});
  check_error([&] { Read(with({{"deep/byteorder", "middle"}})); }, ErrorCode::bad_file, {"middle"});
  check_error([&] { Read(with({}, "11")); }, ErrorCode::unsupported, {"version 11"});
  check_error([&] { Read(with({}, "three")); }, ErrorCode::bad_file, {"three"});
  check_error([&] { Read(with({}, std::string(100, '1'))); }, ErrorCode::bad_file, {"too long"});
  check_error(
      [&] {
        Read(with({{"deep/constants.pkl", "x"}}));
      },
      ErrorCode::unsupported, {"TorchScript", "state_dict()"});
  check_error([&] { Read(with({{"other/data.pkl", "x"}})); }, ErrorCode::bad_file, {"two members"});
  check_error([&] { Read(test::zip_bytes({{"a.txt", "x"}})); }, ErrorCode::bad_file, {"no data.pkl"});

  const std::string storages = test::legacy_storages(two);
  PickleBytes l;
  test::add_state_dict(l.proto(), two, true).raw(".");
  check_error([&] { Read(test::legacy_head(false) + l.bytes + storages); }, ErrorCode::unsupported,
              {"big-endian"});
  check_error([&] { Read(test::legacy_head(true, 1000) + l.bytes + storages); }, ErrorCode::unsupported,
              {"1001"});
  check_error([&] { Read(p.bytes); }, ErrorCode::bad_file, {"not one of torch.save"});
  check_error([&] { Read("L119547037146038801333356L\n."); }, ErrorCode::unsupported,
              {"byte 0", "text protocol"});
}

TEST_CASE("torch file: a damaged legacy file says where") {
  const std::string good = test::torch_legacy(two);
  // Any cut is an error, never a crash or a silent half.
  for (std::size_t size = 0; size < good.size(); ++size) CHECK_THROWS_AS(Read(good.substr(0, size)), Error);
  const std::string zip = test::torch_zip(two);
  for (std::size_t size = 4; size < zip.size(); ++size) CHECK_THROWS_AS(Read(zip.substr(0, size)), Error);
}

TEST_CASE("torch file: the weights are found beside tensors that are none") {
  // A best accuracy or a generator's state beside the state dict, and a model without tensors before it.
  const Read beside(zip_around(two, [&](PickleBytes& p) {
    p.raw("}(").text("epoch").integer(3).text("best_acc1");
    test::add_tensor(p, two[1], "1", false).text("state_dict");
    test::add_state_dict(p, two).raw("u");
  }));
  check_two(beside);
  CHECK(beside.file.facts.at("epoch") == "3");
  REQUIRE(beside.file.ignored.size() == 1);
  CHECK(beside.file.ignored[0].find("'best_acc1'") != std::string::npos);
  check_two(Read(zip_around(two, [&](PickleBytes& p) {
    p.raw("}(").text("model").raw("}(").text("name").text("vgg16").raw("u").text("state_dict");
    test::add_state_dict(p, two).raw("u");
  })));
  // Facts nearer to the weights count more.
  const Read nested(zip_around(two, [&](PickleBytes& p) {
    p.raw("}(").text("epoch").integer(1).text("net").raw("}(").text("epoch").integer(2).text("weights");
    test::add_state_dict(p, two).raw("uu");
  }));
  check_two(nested);
  CHECK(nested.file.facts.at("epoch") == "2");
}

TEST_CASE("torch file: a dimension of one may have any stride") {
  std::vector<WireTensor> tensors{{"w",
                                   {1, 2, 3, 1},
                                   {INT64_MAX, 1, 2, INT64_MAX},
                                   "",
                                   "FloatStorage",
                                   0,
                                   -1,
                                   bytes_of({1, 2, 3, 4, 5, 6})}};
  const Read read(test::torch_zip(tensors));
  CHECK(read.values(0) == std::vector<float>{1, 3, 5, 2, 4, 6});
}
