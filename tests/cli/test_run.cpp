// `frcnn run`: what it takes, what it refuses, what it writes.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "catch.h"
#include "cli/run_tool.h"
#include "cli/tiny_model.h"

using namespace frcnn;
using tool::run;
using tool::TempDir;

namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

tiny::Tensors blob(std::int64_t height, std::int64_t width, float scale) {
  tiny::Tensors t;
  tiny::Tensor& data = t["data"];
  data.shape = {1, 3, height, width};
  for (std::int64_t i = 0; i < 3 * height * width; ++i)
    data.values.push_back(static_cast<float>(i * 7919 % 255) - 110);
  t["im_info"] = {{1, 3}, {static_cast<float>(height), static_cast<float>(width), scale}};
  return t;
}

void write(const std::string& path, const tiny::Tensors& tensors) {
  write_safetensors(path, tiny::stored(tensors), {});
}

std::vector<float> values(const SafetensorsFile& file, const std::string& name) {
  const StoredTensor* tensor = file.find(name);
  REQUIRE(tensor);
  std::vector<float> result(tensor->bytes / sizeof(float));
  std::memcpy(result.data(), tensor->data, tensor->bytes);
  return result;
}

}  // namespace

TEST_CASE("run takes a blob of any size and keeps its input") {
  const TempDir dir;
  tiny::save(dir / "m");
  for (const auto& [height, width] : {std::pair{48, 80}, std::pair{33, 47}, std::pair{150, 200}}) {
    tiny::Tensors in = blob(height, width, 0.5f);
    in["something_else"] = {{2}, {1, 2}};
    write(dir / "in", in);
    const auto result = run({"run", dir / "m", dir / "in", dir / "out"});
    INFO(result.err);
    REQUIRE(result.code == 0);
    const auto out = SafetensorsFile::open(dir / "out");
    CHECK(values(*out, "data") == in["data"].values);
    CHECK(values(*out, "im_info") == in["im_info"].values);
    CHECK(values(*out, "image_size") == std::vector<float>{height * 2.0f, width * 2.0f});
    const auto rois = values(*out, "rois");
    REQUIRE(!rois.empty());
    for (std::size_t i = 0; i < rois.size(); i += 5) {
      CHECK(rois[i] == 0);
      CHECK(rois[i + 3] <= static_cast<float>(width - 1));
      CHECK(rois[i + 4] <= static_cast<float>(height - 1));
    }
    const auto found = values(*out, "detections");
    REQUIRE(!found.empty());
    for (std::size_t i = 0; i < found.size(); i += 6) CHECK(found[i + 1] > 0.05f);
    CHECK(out->find("something_else") == nullptr);
  }
}

TEST_CASE("image_size bounds the detections") {
  const TempDir dir;
  tiny::save(dir / "m");
  tiny::Tensors in = blob(48, 80, 0.5f);
  in["image_size"] = {{1, 2}, {50, 60}};
  write(dir / "in", in);
  REQUIRE(run({"run", dir / "m", dir / "in", dir / "out"}).code == 0);
  const auto found = values(*SafetensorsFile::open(dir / "out"), "detections");
  float right = 0, bottom = 0;
  for (std::size_t i = 0; i < found.size(); i += 6) {
    right = std::max(right, found[i + 4]);
    bottom = std::max(bottom, found[i + 5]);
  }
  CHECK(right == 59);
  CHECK(bottom == 49);
}

TEST_CASE("blobs that do not fit are refused by name") {
  const TempDir dir;
  tiny::save(dir / "m");
  using Change = void (*)(tiny::Tensors&);
  const std::vector<std::pair<std::string, Change>> changes{
      {"data", [](tiny::Tensors& t) { t.erase("data"); }},
      {"im_info", [](tiny::Tensors& t) { t.erase("im_info"); }},
      {"[1,3,any,any]",
       [](tiny::Tensors& t) {
         t["data"].shape = {3, 48, 80};
       }},
      {"[3,1,48,80]",
       [](tiny::Tensors& t) {
         t["data"].shape = {3, 1, 48, 80};
       }},
      {"[3]", [](tiny::Tensors& t) { t["im_info"].shape = {3}; }},
      {"[2,1]",
       [](tiny::Tensors& t) {
         t["image_size"] = {{2, 1}, {50, 60}};
       }},
      {"im_info", [](tiny::Tensors& t) { t["im_info"].values[2] = 0; }},
      {"im_info", [](tiny::Tensors& t) { t["im_info"].values[0] = NAN; }},
      {"im_info says 49x80, data has only 48x80", [](tiny::Tensors& t) { t["im_info"].values[0] = 49; }},
      {"im_info says 48x1e+30, data has only 48x80",
       [](tiny::Tensors& t) { t["im_info"].values[1] = 1e30f; }},
      {"im_info has scale 200", [](tiny::Tensors& t) { t["im_info"].values[2] = 200; }},
      {"im_info has scale 1e-20", [](tiny::Tensors& t) { t["im_info"].values[2] = 1e-20f; }},
      {"image_size",
       [](tiny::Tensors& t) {
         t["image_size"] = {{1, 2}, {-50, 60}};
       }},
      {"[1,3,0,80]",
       [](tiny::Tensors& t) {
         t["data"] = {{1, 3, 0, 80}, {}};
       }},
  };
  for (const auto& [part, change] : changes) {
    tiny::Tensors in = blob(48, 80, 0.5f);
    change(in);
    write(dir / "in", in);
    const auto result = run({"run", dir / "m", dir / "in", dir / "out"});
    INFO(part << ": " << result.err);
    CHECK(result.code == 1);
    CHECK(result.err.rfind("frcnn: error: ", 0) == 0);
    CHECK(contains(result.err, dir / "in"));
    CHECK(contains(result.err, part));
    CHECK(!std::filesystem::exists(dir / "out"));
  }
  tiny::Tensors in = blob(48, 80, 0.5f);
  std::vector<StoredTensor> stored = tiny::stored(in);
  std::vector<double> wide(3, 1.0);
  for (StoredTensor& tensor : stored) {
    if (tensor.name == "im_info") tensor.dtype = DType::f64, tensor.data = wide.data(), tensor.bytes = 24;
  }
  write_safetensors(dir / "in", stored, {});
  const auto result = run({"run", dir / "m", dir / "in", dir / "out"});
  CHECK(result.code == 1);
  CHECK(contains(result.err, "im_info is f64, expected f32"));
}

TEST_CASE("without im_info the image fills the input at the scale of the model's rule") {
  const TempDir dir;
  tiny::save(dir / "m");  // 64 pixels the shorter side, 96 the longer at most
  tiny::Tensors in = blob(64, 80, 1.0f);
  in.erase("im_info");
  write(dir / "in", in);
  const auto refused = run({"run", dir / "m", dir / "in", dir / "out"});
  CHECK(refused.code == 1);
  CHECK(contains(refused.err, "has no tensor `im_info`, and neither image_size nor image_bgr"));

  in["image_size"] = {{1, 2}, {128, 160}};
  write(dir / "in", in);
  const auto result = run({"run", dir / "m", dir / "in", dir / "out"});
  INFO(result.err);
  REQUIRE(result.code == 0);
  CHECK(values(*SafetensorsFile::open(dir / "out"), "im_info") == std::vector<float>{64, 80, 0.5f});

  // The same from an image, whose levels nobody reads.
  in.erase("image_size");
  std::vector<StoredTensor> stored = tiny::stored(in);
  const std::vector<std::uint8_t> pixels(128 * 160 * 3);
  stored.push_back({"image_bgr", DType::u8, {128, 160, 3}, pixels.data(), pixels.size()});
  write_safetensors(dir / "in", stored, {});
  REQUIRE(run({"run", dir / "m", dir / "in", dir / "again"}).code == 0);
  CHECK(tool::read_file(dir / "again") == tool::read_file(dir / "out"));

  in["image_size"] = {{1, 2}, {100, 160}};
  write(dir / "in", in);
  const auto other = run({"run", dir / "m", dir / "in", dir / "other"});
  CHECK(other.code == 1);
  CHECK(contains(other.err, "an image of 100x160 gives an input of 60x96, data is 64x80"));
}

TEST_CASE("an input may be padded beyond its image") {
  const TempDir dir;
  tiny::save(dir / "m");
  tiny::Tensors in = blob(64, 96, 0.5f);
  in["im_info"].values = {50, 70, 0.5f};
  write(dir / "in", in);
  REQUIRE(run({"run", dir / "m", dir / "in", dir / "out"}).code == 0);
  const auto rois = values(*SafetensorsFile::open(dir / "out"), "rois");
  REQUIRE(!rois.empty());
  for (std::size_t i = 0; i < rois.size(); i += 5) {
    CHECK(rois[i + 3] <= 69);
    CHECK(rois[i + 4] <= 49);
  }
}

TEST_CASE("a NaN in the input is found before anything is written") {
  const TempDir dir;
  tiny::save(dir / "m");
  tiny::Tensors in = blob(48, 80, 0.5f);
  in["data"].values[4000] = NAN;
  write(dir / "in", in);
  const auto result = run({"run", dir / "m", dir / "in", dir / "out"});
  CHECK(result.code == 1);
  CHECK(contains(result.err, "data holds nan at element 4000"));
  CHECK(!std::filesystem::exists(dir / "out"));
}

TEST_CASE("a backbone runs for its values, but detects nothing") {
  const TempDir dir;
  tiny::save_backbone(dir / "b");
  tiny::Tensors in = blob(48, 80, 0.5f);
  in.erase("im_info");
  write(dir / "in", in);
  const auto result = run({"run", dir / "b", dir / "in", dir / "out"});
  INFO(result.err);
  REQUIRE(result.code == 0);
  const auto out = SafetensorsFile::open(dir / "out");
  REQUIRE(out->find("conv2"));
  CHECK(out->find("conv2")->shape == std::vector<std::int64_t>{1, 8, 6, 10});
  CHECK(out->find("detections") == nullptr);
  tool::write_file(dir / "i.png", "x");
  const auto detect = run({"detect", dir / "b", dir / "i.png"});
  CHECK(detect.code == 1);
  CHECK(contains(detect.err, "backbone"));
}
