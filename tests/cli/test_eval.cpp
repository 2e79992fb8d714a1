// `frcnn eval` as its users meet it: usage, tables, JSON, and files that do not fit.
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "catch.h"
#include "model_io/detections_json.h"
#include "model_io/image_file.h"
#include "run_tool.h"
#include "tiny_model.h"

namespace {

namespace tool = frcnn::tool;
using tool::TempDir;
using Strings = std::vector<std::string>;

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::string object(const std::string& name, int x1, int y1, int x2, int y2, bool difficult = false) {
  const auto tag = [](const char* key, int value) { return "<" + std::string(key) + ">" + std::to_string(value) + "</" + key + ">"; };
  return "<object><name>" + name + "</name>" + tag("difficult", difficult) + "<bndbox>" + tag("xmin", x1) + tag("ymin", y1) +
         tag("xmax", x2) + tag("ymax", y2) + "</bndbox></object>\n";
}

// Two images: a cat and a dog in the first, a cat and a difficult dog in the second.
struct Voc {
  TempDir root;
  Voc() {
    for (const char* folder : {"Annotations", "ImageSets/Main", "JPEGImages"}) std::filesystem::create_directories(root / folder);
    const auto annotate = [&](const std::string& id, const std::string& objects) {
      tool::write_file(root / ("Annotations/" + id + ".xml"), "<annotation>\n" + objects + "</annotation>\n");
      frcnn::Image image;
      image.width = 60;
      image.height = 40;
      for (int i = 0; i < 60 * 40 * 3; ++i) image.bgr.push_back(static_cast<std::uint8_t>(i * 7 + i / 180 * 31));
      frcnn::write_png(root / ("JPEGImages/" + id + ".png"), image);
    };
    annotate("one", object("cat", 1, 1, 20, 20) + object("dog", 31, 1, 50, 20));
    annotate("two", object("cat", 11, 11, 30, 30) + object("dog", 31, 1, 50, 20, true));
    tool::write_file(root / "ImageSets/Main/test.txt", "one\ntwo\n");
  }
  Strings data() const { return {"--data", root.path().string(), "--set", "test"}; }
};

tool::Result eval(const Strings& arguments, const Strings& more = {}) {
  Strings all{"eval"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  all.insert(all.end(), more.begin(), more.end());
  return tool::run(all);
}

// Both cats, the second one with too low a score; the dog in the wrong place.
const char* const found =
    R"({"images":[{"file":"x/two.jpg","detections":[{"label":"cat","score":0.25,"box":[10,10,29,29]}]},)"
    R"({"file":"one","detections":[{"label":"cat","score":0.9,"box":[0,0,19,19]},{"label":"cat","score":0.5,"box":[40,0,59,19]},)"
    R"({"label":"dog","score":0.8,"box":[0,0,19,19]}]},{"file":"other.png","detections":[]}]})";

}  // namespace

TEST_CASE("eval: scores a file of detections, images matched by stem") {
  const Voc voc;
  tool::write_file(voc.root / "found.json", found);
  const auto result = eval({"--from-detections", voc.root / "found.json", "--json", "-", "--metric", "voc"}, voc.data());
  INFO(result.err);
  REQUIRE(result.code == 0);
  const auto json = nlohmann::ordered_json::parse(result.out);
  Strings keys;
  for (const auto& [key, value] : json.items()) keys.push_back(key);
  CHECK(keys == Strings{"metric", "map", "map_rounded", "per_class", "proposal_recall", "images", "seconds"});
  CHECK(json["metric"] == "voc");
  CHECK(json["images"] == 2);
  CHECK(json["proposal_recall"].is_null());
  const auto& cat = json["per_class"]["cat"];
  CHECK(cat["npos"] == 2);
  CHECK(cat["ndet"] == 3);
  CHECK(cat["max_recall"] == 1);
  CHECK(cat["ap"].get<double>() == Approx(0.5 * 1 + 0.5 * 2 / 3));
  CHECK(json["per_class"]["dog"]["npos"] == 1);
  CHECK(json["per_class"]["dog"]["ap"] == 0);
  CHECK(json["map"].get<double>() == Approx(5.0 / 12));
  CHECK(json["map_rounded"].get<double>() == Approx(5.0 / 12));
}

TEST_CASE("eval: a model's own detections score the same when read back") {
  const Voc voc;
  const std::string model = voc.root / "tiny.safetensors";
  frcnn::tiny::save(model);
  Strings arguments{model, "--detections", voc.root / "found.json", "--json", voc.root / "scores.json"};
  const auto first = eval(arguments, voc.data());
  INFO(first.err);
  REQUIRE(first.code == 0);
  CHECK(has(first.out, "proposal recall"));
  CHECK(has(first.out, "cat"));
  CHECK(first.err.empty());
  const std::string detections = tool::read_file(voc.root / "found.json");
  const auto file = frcnn::read_detections(voc.root / "found.json");
  REQUIRE(file.images.size() == 2);
  CHECK(file.model == model);
  CHECK(file.images[1].width == 60);
  CHECK_FALSE(file.images[0].detections.empty());
  auto live = nlohmann::json::parse(tool::read_file(voc.root / "scores.json"));
  CHECK(live["proposal_recall"].is_number());
  for (const Strings& by : {Strings{}, Strings{model}}) {         // classes of the truth, and the model's
    Strings again = by;
    again.insert(again.end(), {"--from-detections", voc.root / "found.json", "--json", voc.root / "again.json"});
    REQUIRE(eval(again, voc.data()).code == 0);
    const auto read = nlohmann::json::parse(tool::read_file(voc.root / "again.json"));
    for (const char* key : {"map", "map_rounded", "per_class", "images", "metric"}) CHECK(read[key] == live[key]);
  }
  // Both images are of one size: nothing is padded, so a batch of them finds the same.
  Strings batched = voc.data();
  batched.insert(batched.end(), {"--batch", "2"});
  for (const Strings& more : {voc.data(), batched}) {
    REQUIRE(eval(arguments, more).code == 0);
    CHECK(tool::read_file(voc.root / "found.json") == detections);
  }
}

TEST_CASE("eval: wrong usage is told as such") {
  const Voc voc;
  tool::write_file(voc.root / "found.json", found);
  const std::string detections = voc.root / "found.json";
  const auto usage = [](const tool::Result& result, const std::string& part) {
    INFO(result.err);
    CHECK(result.code == 2);
    CHECK(has(result.err, part));
  };
  usage(eval({}, voc.data()), "MODEL (or --from-detections FILE) is required");
  usage(eval({"m", "--set", "test"}), "--data");
  usage(eval({"m", "--data", "d"}), "--set");
  usage(eval({"--from-detections", detections, "--metric", "coco"}, voc.data()), "--metric");
  usage(eval({"m", "--from-detections", detections, "--detections", "x.json"}, voc.data()), "--from-detections");
  usage(eval({"m", "--json", "-", "--detections", "-"}, voc.data()), "standard output");
}

TEST_CASE("eval: input that does not fit is an error that names it, and nothing is written") {
  const Voc voc;
  const std::string model = voc.root / "tiny.safetensors", detections = voc.root / "found.json", out = voc.root / "out.json";
  frcnn::tiny::save(model);
  const auto bad = [&](const Strings& arguments, const Strings& parts) {
    const auto result = eval(arguments, {"--json", out});
    INFO(result.err);
    CHECK(result.code == 1);
    for (const std::string& part : parts) CHECK(has(result.err, part));
    CHECK_FALSE(std::filesystem::exists(out));
  };
  const std::string root = voc.root.path().string();
  bad({model, "--data", root + "/nowhere", "--set", "test"}, {"nowhere", "not a VOC dataset"});
  bad({model, "--data", "coco:" + root, "--set", "test"}, {"coco:", "VOC datasets only"});
  bad({model, "--data", root, "--set", "val"}, {"val.txt", "cannot open"});
  bad({voc.root / "none.safetensors", "--data", root, "--set", "test"}, {"none.safetensors"});
  tool::write_file(detections, R"({"images":[{"file":"one.png","detections":[]}]})");
  bad({"--from-detections", detections, "--data", root, "--set", "test"}, {"found.json", "no entry for image two of set test"});
  tool::write_file(detections, R"({"images":[{"file":"a/one.png","detections":[]},{"file":"one.jpg","detections":[]}]})");
  bad({"--from-detections", detections, "--data", root, "--set", "test"}, {"image one occurs twice"});
  tool::write_file(detections, R"({"images":[{"file":"one.png","detections":[{"label":"cat","score":1,"box":[1,2,3]}]}]})");
  bad({"--from-detections", detections, "--data", root, "--set", "test"}, {"images[0].detections[0].box: expected 4 numbers, found 3"});
  tool::write_file(voc.root / "JPEGImages/two.png", "no image");
  bad({model, "--data", root, "--set", "test"}, {"two.png", "not a JPEG, PNG or BMP image"});
  std::filesystem::remove(voc.root / "JPEGImages/two.png");
  bad({model, "--data", root, "--set", "test"}, {"two", "no image of this name"});
  tool::write_file(voc.root / "Annotations/two.xml", "<annotation>\n<object>\n<name>pig</name>\n</object></annotation>");
  bad({model, "--data", root, "--set", "test"}, {"two.xml:2", "<bndbox>"});
  for (const char* id : {"one", "two"}) {
    tool::write_file(voc.root / (std::string("Annotations/") + id + ".xml"), "<annotation>" + object("pig", 1, 1, 9, 9) + "</annotation>");
  }
  bad({model, "--data", root, "--set", "test"}, {"none of its classes (cat", "pig"});
}
