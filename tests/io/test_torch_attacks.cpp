// Checkpoints made to harm: each is refused with an error that names the place, soon, within bounded memory,
// and nothing is executed or written.
#include <string>

#include "bounds.h"
#include "catch.h"
#include "model_io/convert/convert.h"
#include "scratch.h"
#include "torch_wire.h"

using namespace frcnn;
using scratch::Folder;
using test::bytes_of;
using test::PickleBytes;
using test::WireTensor;
using test::ZipMember;

namespace {

// Converting these bytes fails with all of `parts` in the message.
void check_refused(const std::string& bytes, std::initializer_list<std::string> parts) {
  const Folder folder;
  scratch::write(folder / "evil.pth", bytes);
  ConvertOptions options;
  options.sources = {folder / "evil.pth"};
  options.destination = folder / "model.safetensors";
  std::string message;
  try {
    test::within_bounds(bytes.size(), [&] { convert(options); });
    FAIL_CHECK("converted");
  } catch (const Error& error) {
    message = error.what();
  }
  INFO(message.substr(0, 500));
  CHECK(message.size() < 2000);
  CHECK(message.find("evil.pth") != std::string::npos);
  for (const std::string& part : parts) {
    INFO("wanted: " << part);
    CHECK(message.find(part) != std::string::npos);
  }
  CHECK(folder.files() == 1);
}

// As the pickle of an archive.
std::string zip_of(const std::string& pickle, const std::vector<WireTensor>& tensors = {}) {
  return test::zip_bytes(test::torch_members(pickle, tensors));
}

std::string repeated(const std::string& what, std::size_t times) {
  std::string all;
  all.reserve(what.size() * times);
  for (std::size_t i = 0; i < times; ++i) all += what;
  return all;
}

const std::vector<WireTensor> good{
    {"conv1_1.weight", {2, 3, 1, 1}, {}, "", "FloatStorage", 0, -1, bytes_of({1, 2, 3, 4, 5, 6})}};

// One tensor of the storage "0", which has six floats.
std::string tensor_of(const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& strides,
                      std::int64_t offset = 0, std::int64_t elements = 6,
                      const std::string& type = "FloatStorage", const std::string& key = "0") {
  PickleBytes p;
  p.proto()
      .raw("}(")
      .text("w")
      .global("torch._utils", "_rebuild_tensor_v2")
      .raw("(")
      .storage(type, key, elements);
  p.integer(offset).tuple(shape).tuple(strides).boolean(false).hooks().raw("tRu.");
  return zip_of(p.bytes, good);
}

}  // namespace

TEST_CASE("torch attacks: pickles that import or call") {
  const Folder trap;
  const std::string command = "touch " + trap / "owned";
  const auto call = [&](const std::string& module, const std::string& name) {
    PickleBytes p;
    p.proto().global(module, name).raw("(").text(command).raw("tR.");
    return p.bytes;
  };
  const std::pair<const char*, const char*> names[]{{"os", "system"},
                                                    {"posix", "system"},
                                                    {"builtins", "eval"},
                                                    {"__builtin__", "exec"},
                                                    {"subprocess", "Popen"},
                                                    {"torch.storage", "_load_from_bytes"},
                                                    {"torch._utils", "_import_dotted_name"},
                                                    {"torch", "load"},
                                                    {"torch.nn.modules.container", "Sequential"},
                                                    {"collections", "OrderedDict.fromkeys"},
                                                    {"numpy", "load"}};
  for (const auto& [module, name] : names) {
    INFO(module << "." << name);
    check_refused(zip_of(call(module, name)), {"data.pkl: byte 2", std::string(module) + "." + name});
    check_refused(test::legacy_head() + call(module, name), {"byte ", std::string(module) + "." + name});
    PickleBytes p;
    p.proto(4).raw("\x8c").little(std::string(module).size(), 1).raw(module).raw("\x8c");
    p.little(std::string(name).size(), 1).raw(name).raw("\x93(").text(command).raw("tR.");
    check_refused(zip_of(p.bytes), {std::string(module) + "." + name});
  }
  // The other ways to make an object.
  for (const char* opcode : {"i", "o", "\x92", "\x82", "\x83", "\x84", "P"})
    check_refused(zip_of("\x80\x02(" + std::string(opcode) + "os\nsystem\n."),
                  {"data.pkl: byte 3", "is not supported"});
  // Names of types are no functions, and no value can be called.
  check_refused(zip_of(PickleBytes().proto().global("torch", "FloatStorage").raw(")R.").bytes),
                {"calls a type"});
  check_refused(zip_of(PickleBytes().proto().text("os.system").raw(")R.").bytes),
                {"calls what is no known name"});
  check_refused(zip_of(PickleBytes().proto().integer(1).raw("}b.").bytes), {"sets the attributes"});
  check_refused(zip_of(PickleBytes()
                           .proto()
                           .raw("(")
                           .text("module")
                           .global("collections", "OrderedDict")
                           .raw("tQ.")
                           .bytes),
                {"persistent id"});
  CHECK(trap.files() == 0);
}

TEST_CASE("torch attacks: pickles that nest without end") {
  check_refused(zip_of("\x80\x02" + std::string(1'000'000, '(')), {"byte ", "nested more than"});
  check_refused(zip_of("\x80\x02" + std::string(2'000'000, ']')), {"byte ", "more than"});
  check_refused(zip_of("\x80\x02N" + std::string(1'000'000, '\x85') + "."), {"byte ", "more than"});
  check_refused(zip_of("\x80\x02" + std::string(500'000, ']') + std::string(499'999, 'a') + "."),
                {"no state dict"});
  // A dictionary that is its own model.
  check_refused(zip_of(PickleBytes()
                           .proto()
                           .raw("}q")
                           .little(0, 1)
                           .raw("(")
                           .text("model")
                           .raw("h")
                           .little(0, 1)
                           .raw("u.")
                           .bytes),
                {"nested dictionaries"});
  PickleBytes deep;
  deep.proto();
  for (int i = 0; i < 200; ++i) deep.raw("}(").text("model");
  check_refused(zip_of(deep.raw("}").raw(std::string(200, 'u')).raw(".").bytes), {"nested dictionaries"});
}

TEST_CASE("torch attacks: pickles that ask for memory or time") {
  const auto pickle = [](const std::string& body) { return zip_of("\x80\x02" + body); };
  check_refused(pickle(std::string("]r\xff\xff\xff\xff.", 7)), {"byte 3", "memo index 4294967295"});
  check_refused(pickle(std::string("X\xff\xff\xff\x7f", 5) + "abc."), {"byte 2", "needs 2147483647 bytes"});
  check_refused(pickle(std::string("\x8d\xff\xff\xff\xff\xff\xff\xff\x7f", 9) + "abc."), {"byte 2", "bytes"});
  check_refused(pickle(std::string("\x8b\xff\xff\xff\x7f", 5) + "abc."),
                {"byte 2", "needs 2147483647 bytes"});
  check_refused(pickle(std::string("h\x07.", 3)), {"memo 7 was never put"});
  check_refused(pickle("."), {"empty stack"});
  check_refused(pickle("NN."), {"left over"});
  check_refused(pickle("N"), {"without its STOP"});
  // Twenty megabytes of nothing.
  check_refused(pickle(repeated("N0", 10'000'000)), {"a pickle of more than 16777216 bytes"});
  check_refused(pickle(std::string(10'000'000, ')')), {"more than"});
  check_refused(pickle("](" + std::string(3'000'000, 'N') + "e."), {"more than"});
  // A list of a thousand pairs that becomes an OrderedDict again and again.
  PickleBytes p;
  p.proto().raw("](" + repeated("](NNe", 1000) + "eq").little(0, 1);
  p.global("collections", "OrderedDict").raw("q").little(1, 1);
  for (int i = 0; i < 100'000; ++i) p.raw(std::string("h\x01h\x00\x85R0", 7));
  check_refused(zip_of(p.raw(".").bytes), {"more than"});
  // A tuple of a million sizes for every tensor.
  PickleBytes t;
  t.proto().raw("(" + std::string(500'000, '\x89') + "tq").little(0, 1);
  t.global("torch._utils", "_rebuild_tensor").raw("(").storage("FloatStorage", "0", 6).integer(0);
  check_refused(zip_of(t.raw(std::string("h\x00h\x00tR.", 7)).bytes, good), {"a tensor of rank 500000"});
}

TEST_CASE("torch attacks: tensors that do not lie in their storage") {
  check_refused(tensor_of({7}, {1}), {"data.pkl: byte ", "number 6 of a storage of 6"});
  check_refused(tensor_of({2, 3}, {4, 1}), {"number 6 of a storage of 6"});
  check_refused(tensor_of({1}, {1}, 6), {"number 6 of a storage of 6"});
  check_refused(tensor_of({2}, {-1}, 3), {"stride -1 is negative"});
  check_refused(tensor_of({2}, {1}, -1), {"offset -1 is negative"});
  check_refused(tensor_of({-2}, {1}), {"size -2 is negative"});
  const std::int64_t half = std::int64_t{1} << 32;
  check_refused(tensor_of({half, half}, {1, 1}), {"overflow"});
  check_refused(tensor_of({3, 3}, {std::int64_t{1} << 62, 1}), {"overflow"});
  check_refused(tensor_of({2, 2}, {INT64_MAX - 1, INT64_MAX - 1}), {"overflow"});
  check_refused(tensor_of({2}, {1}, INT64_MAX), {"overflow"});
  check_refused(tensor_of({2, 3}, {1}), {"differ in number"});
  check_refused(tensor_of({1, 1, 1, 1, 1, 1, 1, 1, 1}, {1, 1, 1, 1, 1, 1, 1, 1, 1}), {"rank 9"});
  // Six floats repeated into terabytes.
  check_refused(tensor_of({half * 64, 6}, {0, 1}), {"'w'", "more than the size of the file justifies"});
  check_refused(tensor_of({2000, 2000}, {0, 0}), {"'w'", "more than the size of the file justifies"});
  // Storages that are not what the pickle says.
  check_refused(tensor_of({6}, {1}, 0, 7), {"data/0", "24 bytes, the pickle says 28"});
  check_refused(tensor_of({6}, {1}, 0, 6, "DoubleStorage"), {"24 bytes, the pickle says 48"});
  check_refused(tensor_of({6}, {1}, 0, INT64_MAX), {"claims 9223372036854775807 elements"});
  check_refused(tensor_of({6}, {1}, 0, 6, "FloatStorage", "../../../etc/passwd"), {"etc/passwd", "missing"});
  check_refused(tensor_of({6}, {1}, 0, 6, "FloatStorage", "1"), {"data/1", "missing"});
}

TEST_CASE("torch attacks: one storage of two sizes") {
  for (const char* type : {"DoubleStorage", "FloatStorage"}) {
    PickleBytes p;
    p.proto().raw("}(");
    p.text("a").global("torch._utils", "_rebuild_tensor").raw("(").storage("FloatStorage", "0", 6, true);
    p.integer(0).tuple({6}).tuple({1}).raw("tR");
    p.text("b").global("torch._utils", "_rebuild_tensor").raw("(");
    p.storage(type, "0", type[0] == 'D' ? 6 : 600, true).integer(0).tuple({6}).tuple({1}).raw("tRu.");
    check_refused(test::legacy_head() + p.bytes + test::legacy_storages(good),
                  {"the storage '0' is said to be"});
  }
}

TEST_CASE("torch attacks: zip archives") {
  PickleBytes p;
  test::add_state_dict(p.proto(), good).raw(".");
  const auto members = [&] { return test::torch_members(p.bytes, good); };
  const auto with = [&](const ZipMember& more) {
    auto all = members();
    all.push_back(more);
    return test::zip_bytes(all);
  };
  check_refused(with({"/etc/cron.d/job", "x"}), {"'/etc/cron.d/job'", "absolute"});
  check_refused(with({"C:\\autoexec.bat", "x"}), {"absolute"});
  check_refused(with({"archive/../../up", "x"}), {"climbs"});
  check_refused(with({"archive\\..\\up", "x"}), {"climbs"});
  check_refused(with({"archive/data/0", bytes_of({9, 9, 9, 9, 9, 9})}), {"'archive/data/0'", "twice"});
  check_refused(with({"archive/data.pkl", p.bytes}), {"twice"});
  ZipMember link{"archive/data/9", "/etc/passwd"};
  link.mode = 0120777;
  check_refused(with(link), {"'archive/data/9'", "symbolic link"});
  ZipMember device{"archive/data/9", ""};
  device.mode = 0060666;
  check_refused(with(device), {"no regular file"});
  check_refused(with({"archive/data/", ""}), {"folder"});
  check_refused(with({"", "x"}), {"empty name"});
  check_refused(with({"a\x1b[2Jb", "x"}), {"control byte", "\\x1b"});
  // Bombs: a compressed member, one that claims more than the archive has, many that share their bytes.
  ZipMember bomb{"archive/data/9", "\x63\x60\x18\x05"};
  bomb.method = 8;
  bomb.claimed = 0xfffffff0;
  check_refused(with(bomb), {"is compressed"});
  bomb.method = 0;
  bomb.stored = bomb.claimed;
  check_refused(with(bomb), {"4294967280 bytes"});
  auto quine = members();
  for (int i = 0; i < 200; ++i) {
    ZipMember again{"archive/data/" + std::to_string(i + 100), ""};
    again.claimed = again.stored = static_cast<std::int64_t>(p.bytes.size());
    again.offset = 0;
    quine.push_back(again);
  }
  check_refused(test::zip_bytes(quine), {"more than the archive has"});
  ZipMember secret{"archive/data/9", "x"};
  secret.flags = 1;
  check_refused(with(secret), {"encrypted"});
  auto damaged = members();
  damaged[1].wrong_checksum = true;
  check_refused(test::zip_bytes(damaged), {"'archive/data/0'", "damaged"});
  damaged = members();
  damaged[0].offset = 1 << 30;
  check_refused(test::zip_bytes(damaged), {"'archive/data.pkl' is damaged"});
  check_refused(std::string("PK\x05\x06", 4) + std::string(18, '\xff'), {"zip archive cannot be opened"});
  check_refused(std::string("PK\x05\x06", 4) + std::string(18, '\0'), {"no data.pkl in it"});
  // More members than anybody needs; so many that their number stands in a record of its own.
  constexpr std::uint64_t count = 140'000;
  std::string many;
  for (std::uint64_t i = 0; i < count; ++i) {
    PickleBytes entry;
    const std::string name = std::to_string(i);
    entry.raw(std::string("PK\x01\x02", 4)).little(20, 2).little(20, 2).little(0, 8).little(0, 12);
    entry.little(name.size(), 2).little(0, 16).raw(name);
    many += entry.bytes;
  }
  PickleBytes tail;
  tail.raw("PK\x06\x06").little(44, 8).little(45, 2).little(45, 2).little(0, 4).little(0, 4);
  tail.little(count, 8).little(count, 8).little(many.size(), 8).little(4, 8);
  tail.raw("PK\x06\x07").little(0, 4).little(4 + many.size(), 8).little(1, 4);
  tail.raw("PK\x05\x06")
      .little(0, 4)
      .little(0xffff, 2)
      .little(0xffff, 2)
      .little(0xffffffff, 4)
      .little(0xffffffff, 4);
  tail.little(0, 2);
  // The first entry's signature must be a member's for the file to be taken for an archive.
  check_refused("PK\x03\x04" + many + tail.bytes, {"140000 members, at most 131072"});
}

TEST_CASE("torch attacks: keys that repeat") {
  // Ten megabytes of key, which the memo repeats in two bytes each time.
  const auto shared_key = [](std::size_t key_bytes, const std::string& around, const std::string& pairs) {
    PickleBytes p;
    p.proto().raw("}(").text(std::string(key_bytes, 'k')).raw("q").little(0, 1);
    test::add_tensor(p, good[0], "0", false).raw("q").little(1, 1);
    return zip_of(p.raw(pairs + "u" + around + ".").bytes, good);
  };
  const std::string pair("h\x00h\x01", 4);
  check_refused(shared_key(10'000'000, "", repeated(pair, 400'000)),
                {"a key of the state dict has 10000000 bytes"});
  check_refused(shared_key(1000, "", repeated(pair, 400'000)), {"the state dict has 'kkkk", "twice"});
  // The same beside the weights: there such keys tell nothing.
  PickleBytes p;
  p.proto().raw("}(").text(std::string(10'000'000, 'k')).raw("q").little(0, 1).raw("K\x01");
  p.raw(repeated(std::string("h\x00K\x01", 4), 400'000)).text("model").raw("}").text("a");
  check_refused(zip_of(test::add_tensor(p, good[0], "0", false).raw("su.").bytes, good), {"conv"});
  // Keys of storages are looked up, long ones with equal beginnings slowly.
  check_refused(tensor_of({6}, {1}, 0, 6, "FloatStorage", std::string(256, '0')),
                {"a storage's key of 256 bytes"});
}

TEST_CASE("torch attacks: one dictionary under many keys") {
  // 400,000 mentions of a dictionary of 400,000 entries without tensors.
  PickleBytes p;
  p.proto().raw("}(");
  for (int i = 0; i < 400'000; ++i) p.raw("K\x01N");
  p.raw("uq").little(0, 1).raw("0}(");
  for (int i = 0; i < 400'000; ++i) p.raw("U\x01").raw("a").raw(std::string("h\x00", 2));
  check_refused(zip_of(p.raw("u.").bytes), {"no state dict"});
  // Each level names the next one under all the known keys.
  PickleBytes deep;
  deep.proto().raw("}q").little(0, 1);
  for (int level = 1; level < 8; ++level) {
    const std::string inner = std::string("h") + static_cast<char>(level - 1);
    deep.raw("0}(");
    for (int i = 0; i < 2000; ++i) deep.text(i % 2 ? "model" : "state_dict").raw(inner);
    deep.raw("uq").little(static_cast<std::uint64_t>(level), 1);
  }
  check_refused(zip_of(deep.raw(".").bytes), {"no state dict"});
}

TEST_CASE("torch attacks: the older form") {
  const auto legacy = [](const std::string& storages) {
    PickleBytes p;
    test::add_state_dict(p.proto(), good, true).raw(".");
    return test::legacy_head() + p.bytes + storages;
  };
  const std::string keys = PickleBytes().proto().raw("](").text("0").raw("e.").bytes;
  const auto storage = [](std::uint64_t elements, const std::string& data) {
    return PickleBytes().little(elements, 8).raw(data).bytes;
  };
  check_refused(legacy(keys + storage(6, "abc")), {"byte ", "needs 24 bytes, 3 are left"});
  check_refused(legacy(keys + storage(7, std::string(28, 'x'))), {"has 7 elements, the pickle says 6"});
  check_refused(legacy(keys + "abc"), {"the file ends"});
  check_refused(legacy(PickleBytes().proto().raw("](").text("5").raw("e.").bytes),
                {"'5' belongs to no tensor"});
  check_refused(legacy(PickleBytes().proto().raw("](").text("0").text("0").raw("e.").bytes +
                       storage(6, std::string(24, 'x')) + storage(6, std::string(24, 'x'))),
                {"'0' is there twice"});
  check_refused(legacy(PickleBytes().proto().raw("].").bytes), {"'0' is not in the file"});
  check_refused(legacy(PickleBytes().proto().raw("}.").bytes), {"no list of storages"});
  // A view that leaves its storage.
  PickleBytes v;
  v.proto().raw("}(").text("a").global("torch._utils", "_rebuild_tensor").raw("((").text("storage");
  v.global("torch", "FloatStorage")
      .text("0")
      .text("cpu")
      .integer(6)
      .raw("(")
      .text("9")
      .integer(4)
      .integer(3)
      .raw("ttQ");
  v.integer(0).tuple({3}).tuple({1}).raw("tRu.");
  check_refused(test::legacy_head() + v.bytes + test::legacy_storages(good),
                {"a view of 3 elements from 4 in a storage of 6"});
}
