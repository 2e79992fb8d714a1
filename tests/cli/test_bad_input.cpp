// Models, images and disks that are wrong: one error that names the thing, exit code 1, nothing half-written.
#include <algorithm>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "catch.h"
#include "cli/png.h"
#include "cli/run_tool.h"
#include "cli/tiny_model.h"

using namespace frcnn;
using tool::run;
using tool::TempDir;
using tool::write_file;

namespace {

bool starts_with(const std::string& text, const std::string& start) { return text.rfind(start, 0) == 0; }
bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::vector<std::string> listing(const TempDir& dir) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(dir.path())) {
    names.push_back(std::filesystem::relative(entry.path(), dir.path()).string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// An error that holds every one of `parts`, exit code 1, and no new file in `dir`.
void check_refused(const TempDir& dir, const std::vector<std::string>& arguments,
                   const std::vector<std::string>& parts) {
  std::filesystem::create_directories(dir / "drawn");  // --draw makes it before reading an image
  const std::vector<std::string> before = listing(dir);
  const auto result = run(arguments);
  INFO(result.err);
  CHECK(result.code == 1);
  CHECK(result.out.empty());
  CHECK(starts_with(result.err, "frcnn: error: "));
  CHECK(std::count(result.err.begin(), result.err.end(), '\n') >= 1);
  for (const std::string& part : parts) {
    INFO(part);
    CHECK(contains(result.err, part));
  }
  CHECK(listing(dir) == before);
}

std::string little_endian(std::uint64_t v) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(v >> (8 * i));
  return bytes;
}

}  // namespace

TEST_CASE("a model file that is none is refused by every command that reads one") {
  const TempDir dir;
  tiny::save(dir / "good.safetensors");
  write_file(dir / "i.png", png::picture(80, 60));
  const std::string good = tool::read_file(dir / "good.safetensors");
  const ModelConfig config = tiny::config();
  write_file(dir / "empty.safetensors", "");
  write_file(dir / "short.safetensors", good.substr(0, 5));
  write_file(dir / "header_cut.safetensors", good.substr(0, 100));
  write_file(dir / "data_cut.safetensors", good.substr(0, good.size() - 1));
  write_file(dir / "text.safetensors",
             "This is not a model, but it is long enough to look like a header of one.\n");
  write_file(dir / "image.safetensors", png::picture(20, 20));
  write_file(dir / "greedy.safetensors", little_endian(1ull << 62) + good.substr(8));
  write_file(dir / "greedy2.safetensors", little_endian(good.size()) + good.substr(8));
  const std::string claim = R"({"conv1.weight":{"dtype":"F32","shape":[8,3,3,3],"data_offsets":[0,864]}})";
  write_file(dir / "claims_more.safetensors", little_endian(claim.size()) + claim + std::string(860, '\0'));
  const auto tensors = tiny::tensors(config);
  write_safetensors(dir / "no_metadata.safetensors", tiny::stored(tensors), {});
  auto metadata = SafetensorsFile::open(dir / "good.safetensors")->metadata();
  auto wrong = tensors;
  wrong["fc7.weight"].shape = {8, 32};
  write_safetensors(dir / "wrong_shape.safetensors", tiny::stored(wrong), metadata);
  wrong = tensors;
  wrong.erase("conv2.bias");
  write_safetensors(dir / "missing_tensor.safetensors", tiny::stored(wrong), metadata);
  wrong = tensors;
  wrong["surplus"] = {{1}, {0.0f}};
  write_safetensors(dir / "unknown_tensor.safetensors", tiny::stored(wrong), metadata);
  metadata.at("frcnn") = "{";
  write_safetensors(dir / "bad_metadata.safetensors", tiny::stored(tensors), metadata);

  const std::vector<std::pair<std::string, std::vector<std::string>>> files{
      {"missing", {}},
      {"empty", {}},
      {"short", {}},
      {"header_cut", {}},
      {"data_cut", {}},
      {"text", {}},
      {"image", {}},
      {"greedy", {}},
      {"greedy2", {}},
      {"claims_more", {}},
      {"no_metadata", {"frcnn convert"}},
      {"wrong_shape", {"fc7.weight", "x16", "8x32"}},
      {"missing_tensor", {"conv2.bias"}},
      {"unknown_tensor", {"surplus"}},
      {"bad_metadata", {}}};
  for (const auto& [name, parts] : files) {
    INFO(name);
    const std::string path = dir / (name + ".safetensors");
    std::vector<std::string> expected{path};
    expected.insert(expected.end(), parts.begin(), parts.end());
    check_refused(
        dir, {"detect", path, dir / "i.png", "--json", dir / "out.json", "--dump", dir / "d.safetensors"},
        expected);
    check_refused(dir, {"inspect", path, "--dot", dir / "out.dot"}, expected);
  }
  check_refused(dir, {"detect", dir.path().string(), dir / "i.png"}, {dir.path().string()});
}

TEST_CASE("weights that are not finite are refused by name, wherever they stand") {
  const TempDir dir;
  write_file(dir / "i.png", png::picture(80, 60));
  for (const auto& [name, tensor] : tiny::tensors(tiny::config())) {
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
      auto tensors = tiny::tensors(tiny::config());
      tensors[name].values[1] = bad;
      tiny::save(dir / "m.safetensors", tiny::config(), tensors);
      INFO(name << " " << bad);
      check_refused(dir, {"detect", dir / "m.safetensors", dir / "i.png", "--json", dir / "out.json"},
                    {dir / "m.safetensors", name});
    }
  }
}

TEST_CASE("values that overflow end in an error that names the image and the first of them") {
  const TempDir dir;
  write_file(dir / "i.png", png::picture(80, 60));
  auto tensors = tiny::tensors(tiny::config());
  tensors["bbox_pred.bias"].values[5] = 3e38f;
  for (float& w : tensors["fc7.bias"].values) w = 3e38f;
  for (float& w : tensors["bbox_pred.weight"].values) w = 1e3f;
  tiny::save(dir / "m.safetensors", tiny::config(), tensors);
  check_refused(dir, {"detect", dir / "m.safetensors", dir / "i.png", "--json", dir / "out.json"},
                {dir / "i.png", "inf"});
}

TEST_CASE("images that cannot be read are refused") {
  const TempDir dir;
  tiny::save(dir / "m.safetensors");
  const std::string good = png::picture(80, 60);
  write_file(dir / "zero.png", "");
  write_file(dir / "cut.png", good.substr(0, good.size() / 2));
  write_file(dir / "text.jpg", "no picture at all\n");
  write_file(dir / "magic.jpg", "\xff\xd8\xff\xe0" + std::string(2000, 'x'));
  write_file(dir / "magic.bmp", "BM" + std::string(200, '\xff'));
  std::string broken = good;
  for (std::size_t i = 60; i < broken.size() - 40; i += 7) broken[i] = static_cast<char>(broken[i] ^ 0x3c);
  write_file(dir / "broken.png", broken);
  write_file(dir / "huge.png", png::header(20000, 20000, 8, png::rgb) + png::chunk("IDAT", png::zlib("abc")));
  write_file(dir / "overflow.png",
             png::header(0x7fffffff, 0x7fffffff, 16, png::rgba) + png::chunk("IDAT", png::zlib("abc")));
  write_file(dir / "nothing.png", png::header(0, 0, 8, png::rgb) + png::chunk("IDAT", png::zlib("")));
  for (const std::string name : {"missing.png", "zero.png", "cut.png", "text.jpg", "magic.jpg", "magic.bmp",
                                 "broken.png", "huge.png", "overflow.png", "nothing.png"}) {
    INFO(name);
    check_refused(dir,
                  {"detect", dir / "m.safetensors", dir / name, "--json", dir / "out.json", "--draw",
                   dir / "drawn", "--dump", dir / "dump.safetensors", "--proposals-out", dir / "p.json"},
                  {dir / name});
  }
}

TEST_CASE("odd but legal images are detected in") {
  const TempDir dir;
  tiny::save(dir / "m.safetensors");
  write_file(dir / "one.png", png::picture(1, 1));
  write_file(dir / "tall.png", png::picture(1, 90));
  write_file(dir / "wide.png", png::picture(90, 1));
  write_file(dir / "grey.png", png::picture(70, 50, 8, png::grey));
  write_file(dir / "grey16.png", png::picture(70, 50, 16, png::grey));
  write_file(dir / "grey_alpha.png", png::picture(70, 50, 8, png::grey_alpha));
  write_file(dir / "rgb16.png", png::picture(70, 50, 16, png::rgb));
  write_file(dir / "rgba.png", png::picture(70, 50, 8, png::rgba));
  write_file(dir / "rgba16.png", png::picture(70, 50, 16, png::rgba));
  for (const std::string name : {"one.png", "tall.png", "wide.png", "grey.png", "grey16.png",
                                 "grey_alpha.png", "rgb16.png", "rgba.png", "rgba16.png"}) {
    const auto result = run({"detect", dir / "m.safetensors", dir / name, "--json", "-", "--score", "0",
                             "--draw", dir / "drawn"});
    INFO(name << ": " << result.err);
    REQUIRE(result.code == 0);
    const auto image = nlohmann::json::parse(result.out)["images"][0];
    for (const auto& d : image["detections"]) {
      CHECK(d["box"][0] >= 0.0);
      CHECK(d["box"][1] >= 0.0);
      CHECK(d["box"][2] <= image["width"].get<double>() - 1);
      CHECK(d["box"][3] <= image["height"].get<double>() - 1);
    }
  }
}

// 96 pixels for 4000: one row would become none. There is nothing to detect in, and that must be said.
TEST_CASE("an image that the scale rule leaves without a pixel is refused") {
  const TempDir dir;
  tiny::save(dir / "m.safetensors");
  write_file(dir / "line.png", png::picture(4000, 1));
  check_refused(dir, {"detect", dir / "m.safetensors", dir / "line.png", "--json", dir / "out.json"},
                {dir / "line.png", "4000"});
}

TEST_CASE("no proposal survives: no detections and no failure") {
  const TempDir dir;
  ModelConfig config = tiny::config();
  config.rpn_min_size = 1e5;
  tiny::save(dir / "m.safetensors", config, tiny::tensors(config));
  write_file(dir / "i.png", png::picture(80, 60));
  const auto result =
      run({"detect", dir / "m.safetensors", dir / "i.png", "--json", "-", "--draw", dir / "drawn", "--dump",
           dir / "dump.safetensors", "--proposals-out", dir / "p.json"});
  INFO(result.err);
  REQUIRE(result.code == 0);
  const auto image = nlohmann::json::parse(result.out)["images"][0];
  CHECK(image["proposals"] == 0);
  CHECK(image["detections"].empty());
  const auto dump = SafetensorsFile::open(dir / "dump.safetensors");
  REQUIRE(dump->find("detections"));
  CHECK(dump->find("detections")->shape == std::vector<std::int64_t>{0, 6});
  REQUIRE(dump->find("rois"));
  CHECK(dump->find("rois")->shape == std::vector<std::int64_t>{0, 5});
  CHECK(nlohmann::json::parse(tool::read_file(dir / "p.json"))["images"][0]["boxes"].empty());
  const auto human = run({"detect", dir / "m.safetensors", dir / "i.png"});
  CHECK(human.code == 0);
  CHECK(contains(human.out, "0 detections"));
}

TEST_CASE("a full disk leaves the old file and no other") {
  const TempDir dir;
  tiny::save(dir / "m.safetensors");
  write_file(dir / "i.png", png::picture(80, 60));
  write_file(dir / "old", "the old content");
  tool::Options full;
  full.file_size_limit = 1024;  // so large is a file that clang's OpenMP makes in shared memory
  const std::vector<std::string> detect{"detect", dir / "m.safetensors", dir / "i.png", "--score", "0"};
  for (const std::vector<std::string>& output : {std::vector<std::string>{"--dump", dir / "old"},
                                                 {"--json", dir / "old"},
                                                 {"--proposals-out", dir / "old"}}) {
    INFO(output[0]);
    std::vector<std::string> arguments = detect;
    arguments.insert(arguments.end(), output.begin(), output.end());
    const std::vector<std::string> before = listing(dir);
    const auto result = run(arguments, full);
    INFO(result.err);
    CHECK(result.code == 1);
    CHECK(starts_with(result.err, "frcnn: error: "));
    CHECK(contains(result.err, dir / "old"));
    CHECK(listing(dir) == before);
    CHECK(tool::read_file(dir / "old") == "the old content");
  }
  std::vector<std::string> draw = detect;
  draw.insert(draw.end(), {"--draw", dir / "drawn"});
  const auto drawn = run(draw, full);
  CHECK(drawn.code == 1);
  CHECK(contains(drawn.err, dir / "drawn"));
  CHECK(std::filesystem::is_empty(dir / "drawn"));

  std::vector<std::string> json = detect;
  json.insert(json.end(), {"--json", "-"});
  const auto to_stdout = run(json, {.stdout_to = "/dev/full"});
  CHECK(to_stdout.code == 1);
  CHECK(contains(to_stdout.err, "standard output"));
  json.back() = "/dev/full";
  const auto to_device = run(json);
  CHECK(to_device.code == 1);
  CHECK(contains(to_device.err, "/dev/full"));
}

TEST_CASE("outputs into a place that is not there are refused") {
  const TempDir dir;
  tiny::save(dir / "m.safetensors");
  write_file(dir / "i.png", png::picture(80, 60));
  for (const std::string option : {"--json", "--dump", "--proposals-out"}) {
    INFO(option);
    const auto result = run({"detect", dir / "m.safetensors", dir / "i.png", option, dir / "nowhere/out"});
    CHECK(result.code == 1);
    CHECK(contains(result.err, dir / "nowhere/out"));
  }
  const auto result = run({"detect", dir / "m.safetensors", dir / "i.png", "--draw", dir / "i.png"});
  CHECK(result.code == 1);
  CHECK(contains(result.err, dir / "i.png"));
}

TEST_CASE("proposal files that do not fit are refused") {
  const TempDir dir;
  tiny::save(dir / "m.safetensors");
  write_file(dir / "i.png", png::picture(80, 60));
  const std::vector<std::pair<std::string, std::string>> bad{
      {"", "p.json"},
      {"{", "p.json"},
      {"[]", "object"},
      {R"({"images":[]})", "i.png"},
      {R"({"images":[{"file":"other.png","boxes":[],"scores":[]}]})", "i.png"},
      {R"({"images":[{"file":"i.png","boxes":[[1,2,3]],"scores":[1]}]})", "box"},
      {R"({"images":[{"file":"i.png","boxes":[[1,2,3,4]],"scores":[]}]})", "scores"},
      {R"({"images":[{"file":"i.png","boxes":[[1,2,3,"4"]],"scores":[1]}]})", "box"},
      {R"({"images":[{"file":"a/i.png","boxes":[],"scores":[]},{"file":"b/i.png","boxes":[],"scores":[]}]})",
       "i.png"},
  };
  for (const auto& [text, part] : bad) {
    write_file(dir / "p.json", text);
    INFO(text);
    check_refused(dir,
                  {"detect", dir / "m.safetensors", dir / "i.png", "--proposals", dir / "p.json", "--json",
                   dir / "out.json"},
                  {dir / "p.json", part});
  }
  check_refused(dir, {"detect", dir / "m.safetensors", dir / "i.png", "--proposals", dir / "none.json"},
                {dir / "none.json"});
}
