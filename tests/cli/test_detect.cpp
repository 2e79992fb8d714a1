// What `frcnn detect` finds, says and writes.
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "catch.h"
#include "cli/png.h"
#include "cli/run_tool.h"
#include "cli/tiny_model.h"

using namespace frcnn;
using Json = nlohmann::ordered_json;
using tool::run;
using tool::TempDir;
using tool::write_file;

namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::vector<std::string> keys(const Json& object) {
  std::vector<std::string> result;
  for (const auto& [key, value] : object.items()) result.push_back(key);
  return result;
}

struct Scene {
  TempDir dir;
  std::string model = dir / "m.safetensors", image = dir / "i.png";
  Scene() {
    tiny::save(model);
    write_file(image, png::picture(100, 70));
  }
  tool::Result detect(std::vector<std::string> more, std::vector<std::string> images = {}) const {
    std::vector<std::string> arguments{"detect", model};
    if (images.empty()) images = {image};
    arguments.insert(arguments.end(), images.begin(), images.end());
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }
  Json json(std::vector<std::string> more, std::vector<std::string> images = {}) const {
    more.insert(more.end(), {"--json", "-"});
    const auto result = detect(more, images);
    INFO(result.err);
    REQUIRE(result.code == 0);
    return Json::parse(result.out);
  }
};

}  // namespace

TEST_CASE("the JSON has the documented keys in their order, and boxes sorted by score") {
  const Scene scene;
  const Json json = scene.json({"--score", "0.1"});
  CHECK(keys(json) == std::vector<std::string>{"model", "device", "precision", "images"});
  CHECK(json["model"] == scene.model);
  CHECK(json["precision"] == "fp32");
  REQUIRE(json["images"].size() == 1);
  const Json& image = json["images"][0];
  CHECK(keys(image) ==
        std::vector<std::string>{"file", "width", "height", "scale", "proposals", "detections"});
  CHECK(image["file"] == scene.image);
  CHECK(image["width"] == 100);
  CHECK(image["height"] == 70);
  CHECK(image["scale"].get<double>() == Approx(64.0 / 70));
  CHECK(image["proposals"] == 30);
  REQUIRE(image["detections"].size() > 1);
  float last = 1;
  for (const Json& d : image["detections"]) {
    CHECK(keys(d) == std::vector<std::string>{"label", "class_id", "score", "box"});
    CHECK(d["label"] == (d["class_id"] == 1 ? "cat" : "dog"));
    const float score = d["score"].get<float>();
    CHECK(score <= last);
    CHECK(score >= 0.1f);
    last = score;
    const Json& box = d["box"];
    REQUIRE(box.size() == 4);
    CHECK(box[0] >= 0.0);
    CHECK(box[1] >= 0.0);
    CHECK(box[2] <= 99.0);
    CHECK(box[3] <= 69.0);
    CHECK(box[0] <= box[2]);
    CHECK(box[1] <= box[3]);
  }
}

TEST_CASE("option --timing adds ms and nothing else") {
  const Scene scene;
  Json timed = scene.json({"--score", "0.1", "--timing"});
  Json& ms = timed["images"][0]["ms"];
  CHECK(keys(ms) ==
        std::vector<std::string>{"decode", "preprocess", "backbone", "rpn", "proposals", "head", "total"});
  double sum = 0;
  for (const auto& [stage, value] : ms.items()) {
    INFO(stage);
    REQUIRE(value.is_number());  // the CPU can time every stage
    CHECK(value >= 0.0);
    if (stage != "total") sum += value.get<double>();
  }
  CHECK(sum <= ms["total"].get<double>());
  timed["images"][0].erase("ms");
  CHECK(timed == scene.json({"--score", "0.1"}));
  const auto human = scene.detect({"--timing"});
  CHECK(contains(human.out, "backbone"));
  CHECK(contains(human.out, "total"));
}

TEST_CASE("option --score selects, above and below the model's own threshold") {
  const Scene scene;
  const Json all = scene.json({"--score", "0", "--max-detections", "0"})["images"][0]["detections"];
  const Json some = scene.json({"--score", "0.3", "--max-detections", "0"})["images"][0]["detections"];
  REQUIRE(some.size() < all.size());
  REQUIRE(!some.empty());
  for (std::size_t i = 0; i < some.size(); ++i) CHECK(some[i] == all[i]);
  CHECK(all[some.size()]["score"].get<float>() < 0.3f);
  CHECK(scene.json({"--score", "1"})["images"][0]["detections"].empty());
  // Below the threshold of a model that shows nothing by itself.
  ModelConfig config = tiny::config();
  config.score_threshold = 0.99;
  tiny::save(scene.model, config, tiny::tensors(config));
  CHECK(scene.json({"--score", "0", "--max-detections", "0"})["images"][0]["detections"] == all);
  CHECK(scene.json({"--score", "0.3", "--max-detections", "0"})["images"][0]["detections"] == some);
}

TEST_CASE("every override does what it says") {
  const Scene scene;
  const Json base = scene.json({"--score", "0"})["images"][0];
  CHECK(scene.json({"--short-side", "35"})["images"][0]["scale"].get<double>() == Approx(0.5));
  CHECK(scene.json({"--long-side", "50"})["images"][0]["scale"].get<double>() == Approx(0.5));
  CHECK(scene.json({"--num-proposals", "7"})["images"][0]["proposals"] == 7);
  CHECK(scene.json({"--num-proposals", "50"})["images"][0]["proposals"] > 30);
  const Json few = scene.json({"--score", "0", "--max-detections", "2"})["images"][0]["detections"];
  REQUIRE(few.size() >= 2);  // ties with the last one stay
  CHECK(few.size() < base["detections"].size());
  CHECK(few[0] == base["detections"][0]);
  CHECK(few.back()["score"] == few[1]["score"]);
  const auto count = [&](const char* nms) {
    return scene.json({"--score", "0", "--max-detections", "0", "--nms", nms})["images"][0]["detections"]
        .size();
  };
  CHECK(count("1") == 2 * base["proposals"].get<std::size_t>());
  CHECK(count("0") < count("0.3"));
  CHECK(count("0.3") < count("1"));
}

TEST_CASE("files, directories and patterns name images") {
  const Scene scene;
  const TempDir& dir = scene.dir;
  std::filesystem::create_directories(dir / "d/sub");
  write_file(dir / "d/b.PNG", png::picture(40, 30));
  write_file(dir / "d/a.png", png::picture(41, 30));
  write_file(dir / "d/c[1].png", png::picture(42, 30));
  write_file(dir / "d/notes.txt", "not an image");
  write_file(dir / "d/sub/e.png", png::picture(43, 30));
  std::filesystem::create_directories(dir / "empty");
  const auto files = [&](const std::vector<std::string>& images) {
    std::vector<std::string> names;
    const Json json = scene.json({}, images);
    for (const Json& image : json["images"]) names.push_back(image["file"]);
    return names;
  };
  const std::string a = dir / "d/a.png", b = dir / "d/b.PNG", c = dir / "d/c[1].png";
  CHECK(files({dir / "d"}) == std::vector<std::string>{a, b, c});
  CHECK(files({dir / "d/*.png"}) == std::vector<std::string>{a, c});
  CHECK(files({dir / "d/[ab].*"}) == std::vector<std::string>{a, b});
  CHECK(files({c}) == std::vector<std::string>{c});  // a file's name comes before its reading as a pattern
  CHECK(files({scene.image, dir / "d", a}) == std::vector<std::string>{scene.image, a, b, c, a});
  for (const std::string& none : {dir / "empty", dir / "d/*.gif"}) {
    const auto result = scene.detect({}, {none});
    CHECK(result.code == 1);
    CHECK(contains(result.err, none));
    const auto others = scene.detect({}, {none, scene.image});  // go on
    CHECK(others.code == 1);
    CHECK(others.err == result.err);
    CHECK(contains(others.out, scene.image));
  }
}

TEST_CASE("a bad image is reported and the others go on") {
  const Scene scene;
  write_file(scene.dir / "bad.png", "oh no");
  write_file(scene.dir / "other.png", png::picture(60, 60));
  const std::vector<std::string> images{scene.image, scene.dir / "bad.png", scene.dir / "other.png"};
  const auto result = scene.detect({"--json", scene.dir / "o.json", "--draw", scene.dir / "drawn"}, images);
  CHECK(result.code == 1);
  CHECK(result.err.rfind("frcnn: error: ", 0) == 0);
  CHECK(contains(result.err, scene.dir / "bad.png"));
  CHECK(contains(result.out, scene.image));
  CHECK(contains(result.out, scene.dir / "other.png"));
  const Json json = Json::parse(tool::read_file(scene.dir / "o.json"));
  REQUIRE(json["images"].size() == 2);
  CHECK(json["images"][1]["file"] == images[2]);
  CHECK(std::filesystem::exists(scene.dir / "drawn/i.png"));
  CHECK(std::filesystem::exists(scene.dir / "drawn/other.png"));
  CHECK(!std::filesystem::exists(scene.dir / "drawn/bad.png"));
}

TEST_CASE("pictures of images with equal names do not replace each other or what was read") {
  const Scene scene;
  std::filesystem::create_directories(scene.dir / "b");
  write_file(scene.dir / "b/i.png", png::picture(50, 50));
  const std::string before = tool::read_file(scene.image);
  const auto result = scene.detect({"--score", "0", "--draw", scene.dir.path().string()},
                                   {scene.image, scene.dir / "b/i.png"});
  INFO(result.err);
  REQUIRE(result.code == 0);
  CHECK(tool::read_file(scene.image) == before);
  CHECK(std::filesystem::exists(scene.dir / "i-2.png"));
  CHECK(std::filesystem::exists(scene.dir / "i-3.png"));
  CHECK(tool::read_file(scene.dir / "i-2.png") != tool::read_file(scene.dir / "i-3.png"));
  CHECK(tool::read_file(scene.dir / "i-2.png").substr(1, 3) == "PNG");
}

TEST_CASE("the table on stdout has one aligned line per detection") {
  const Scene scene;
  const Json json = scene.json({"--score", "0.2"})["images"][0];
  const auto result = scene.detect({"--score", "0.2"});
  CHECK(result.code == 0);
  CHECK(result.err.empty());
  std::size_t lines = 0, length = 0;
  for (std::size_t at = result.out.find('\n') + 1; at < result.out.size();) {
    const std::size_t end = result.out.find('\n', at);
    if (lines++ == 0) length = end - at;
    CHECK(end - at == length);
    at = end + 1;
  }
  CHECK(lines == json["detections"].size());
  CHECK(contains(result.out, scene.image + "  100x70, 30 proposals"));
  CHECK(contains(result.out, " on " + scene.json({})["device"].get<std::string>() + "\n"));
}

TEST_CASE("a progress bar shows on a terminal only, and only for several images") {
  const Scene scene;
  std::vector<std::string> arguments{"detect", scene.model};
  for (int i = 0; i < 6; ++i) arguments.push_back(scene.image);
  arguments.insert(arguments.end(), {"--json", scene.dir / "o.json"});
  tool::Options terminal;
  terminal.stderr_is_terminal = true;
  const auto shown = run(arguments, terminal);
  CHECK(shown.code == 0);
  CHECK(contains(shown.err, "0/6"));
  CHECK(contains(shown.err, "[------------------------]"));
  CHECK(shown.err.substr(shown.err.size() - 4) == "\r\033[K");  // wiped at the end
  CHECK(run(arguments).err.empty());
  CHECK(run({"detect", scene.model, scene.image}, terminal).err.empty());
}

TEST_CASE("two runs write equal bytes") {
  const Scene scene;
  std::vector<std::vector<std::string>> written;
  for (const std::string n : {"1", "2"}) {
    const auto result =
        scene.detect({"--score", "0", "--json", scene.dir / ("j" + n), "--dump", scene.dir / ("d" + n),
                      "--proposals-out", scene.dir / ("p" + n), "--draw", scene.dir / ("drawn" + n)});
    REQUIRE(result.code == 0);
    written.push_back({result.out});
    for (const std::string& name : {"j" + n, "d" + n, "p" + n, "drawn" + n + "/i.png"}) {
      written.back().push_back(tool::read_file(scene.dir / name));
    }
  }
  for (std::size_t i = 0; i < written[0].size(); ++i) {
    INFO(i);
    CHECK(written[0][i] == written[1][i]);
  }
}

namespace {

std::vector<std::string> order(const SafetensorsFile& file) {
  return Json::parse(file.metadata().at("order")).get<std::vector<std::string>>();
}

bool equal(const StoredTensor& a, const StoredTensor& b) {
  return a.dtype == b.dtype && a.shape == b.shape && std::memcmp(a.data, b.data, a.bytes) == 0;
}

}  // namespace

TEST_CASE("a dump holds every published value as f32 in network order") {
  const Scene scene;
  REQUIRE(scene.detect({"--dump", scene.dir / "d"}).code == 0);
  const auto dump = SafetensorsFile::open(scene.dir / "d");
  const auto names = order(*dump);
  CHECK(names.size() == dump->tensors().size());
  std::size_t place = 0;
  const std::vector<std::string> network{
      "data", "conv1", "pool1", "conv2", "rpn/output", "rpn_cls_score", "rpn_cls_prob_reshape",
      "rois", "pool5", "fc6",   "fc7",   "cls_prob"};
  for (const std::string& name : names) {
    INFO(name);
    CHECK(name.find('@') == std::string::npos);
    REQUIRE(dump->find(name));
    CHECK(dump->find(name)->dtype == DType::f32);
    if (place < network.size() && name == network[place]) ++place;
  }
  CHECK(place == network.size());
  for (const char* name :
       {"im_info", "roi_scores", "rpn_bbox_pred", "cls_score", "bbox_pred", "detections"}) {
    CHECK(dump->find(name) != nullptr);
  }
  using Dims = std::vector<std::int64_t>;
  CHECK(dump->find("data")->shape == Dims{1, 3, 64, 91});
  CHECK(dump->find("conv1")->shape == Dims{1, 8, 32, 46});
  CHECK(dump->find("pool1")->shape == Dims{1, 8, 16, 23});
  CHECK(dump->find("rpn_cls_prob_reshape")->shape == Dims{1, 12, 8, 12});
  CHECK(dump->find("rois")->shape == Dims{30, 5});
  CHECK(dump->find("pool5")->shape == Dims{30, 8, 3, 3});
  CHECK(dump->find("bbox_pred")->shape == Dims{30, 12});
  CHECK(run({"diff", scene.dir / "d", scene.dir / "d"}).code == 0);

  write_file(scene.dir / "other.png", png::picture(30, 30));
  const auto two = scene.detect({"--dump", scene.dir / "e"}, {scene.image, scene.dir / "other.png"});
  CHECK(two.code == 1);
  CHECK(contains(two.err, "--dump"));
  CHECK(!std::filesystem::exists(scene.dir / "e"));
}

TEST_CASE("running a dump's input gives the dump") {
  const Scene scene;
  REQUIRE(scene.detect({"--dump", scene.dir / "d"}).code == 0);
  const auto result = run({"run", scene.model, scene.dir / "d", scene.dir / "r"});
  INFO(result.err);
  REQUIRE(result.code == 0);
  const auto dump = SafetensorsFile::open(scene.dir / "d"), again = SafetensorsFile::open(scene.dir / "r");
  CHECK(dump->find("detections")->shape[0] > 0);
  std::size_t compared = 0;
  for (const StoredTensor& tensor : dump->tensors()) {
    INFO(tensor.name);
    REQUIRE(again->find(tensor.name));
    CHECK(equal(tensor, *again->find(tensor.name)));
    ++compared;
  }
  CHECK(compared > 15);
  CHECK(again->tensors().size() == compared);
  CHECK(run({"diff", scene.dir / "d", scene.dir / "r", "--rtol", "0", "--atol", "0"}).code == 0);
}

TEST_CASE("the dump's detections are those that are printed") {
  const Scene scene;
  const Json json = scene.json({"--score", "0", "--dump", scene.dir / "d"})["images"][0]["detections"];
  const auto dump = SafetensorsFile::open(scene.dir / "d");
  const StoredTensor& stored = *dump->find("detections");
  REQUIRE(stored.shape == std::vector<std::int64_t>{static_cast<std::int64_t>(json.size()), 6});
  std::vector<float> rows(json.size() * 6);
  std::memcpy(rows.data(), stored.data, stored.bytes);
  for (std::size_t i = 0; i + 6 < rows.size(); i += 6) {  // classes ascending, scores descending
    CHECK((rows[i] < rows[i + 6] || (rows[i] == rows[i + 6] && rows[i + 1] >= rows[i + 7])));
  }
  for (const Json& d : json) {
    bool found = false;
    for (std::size_t i = 0; i < rows.size(); i += 6) {
      found = found || (rows[i] == d["class_id"].get<float>() && rows[i + 1] == d["score"].get<float>() &&
                        rows[i + 2] == d["box"][0].get<float>() && rows[i + 5] == d["box"][3].get<float>());
    }
    CHECK(found);
  }
}

TEST_CASE("proposals that were written can take the network's place") {
  const Scene scene;
  const Json base = scene.json({"--score", "0", "--max-detections", "0", "--proposals-out", scene.dir / "p"});
  const Json written = Json::parse(tool::read_file(scene.dir / "p"));
  REQUIRE(written["images"].size() == 1);
  CHECK(keys(written["images"][0]) == std::vector<std::string>{"file", "boxes", "scores"});
  CHECK(written["images"][0]["boxes"].size() == 30);
  CHECK(written["images"][0]["scores"].size() == 30);
  const Json again = scene.json({"--score", "0", "--max-detections", "0", "--proposals", scene.dir / "p"});
  const Json &a = base["images"][0]["detections"], &b = again["images"][0]["detections"];
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    CHECK(a[i]["score"].get<double>() == Approx(b[i]["score"].get<double>()).margin(1e-4));
    CHECK(a[i]["box"][2].get<double>() == Approx(b[i]["box"][2].get<double>()).margin(0.05));
  }
  // One box of the user's own, found by stem; it is what the head then sees.
  write_file(scene.dir / "one",
             R"({"images":[{"file":"elsewhere/i.jpg","boxes":[[10,20,59,49]],"scores":[0.5]}]})");
  CHECK(scene.json({"--proposals", scene.dir / "one", "--dump", scene.dir / "d"})["images"][0]["proposals"] ==
        1);
  const auto dump = SafetensorsFile::open(scene.dir / "d");
  float roi[5];
  REQUIRE(dump->find("rois")->bytes == sizeof roi);
  std::memcpy(roi, dump->find("rois")->data, sizeof roi);
  const double scale = 64.0 / 70;
  CHECK(roi[1] == Approx(10 * scale));
  CHECK(roi[4] == Approx(49 * scale));
  // None at all is legal too.
  write_file(scene.dir / "none", R"({"images":[{"file":"i.png","boxes":[],"scores":[]}]})");
  CHECK(scene.json({"--proposals", scene.dir / "none"})["images"][0]["detections"].empty());
}

// The convolutions of oneDNN may sum in another order with other thread counts; all that follows may not.
TEST_CASE("after equal network outputs, another number of threads changes nothing") {
  const Scene scene;
  for (const std::string n : {"1", "2", "3"}) {
    const auto result =
        scene.detect({"--threads", n, "--score", "0", "--json", scene.dir / ("j" + n), "--dump",
                      scene.dir / ("d" + n), "--proposals-out", scene.dir / ("p" + n)});
    INFO(result.err);
    REQUIRE(result.code == 0);
  }
  const auto one = SafetensorsFile::open(scene.dir / "d1");
  for (const std::string n : {"2", "3"}) {
    const auto many = SafetensorsFile::open(scene.dir / ("d" + n));
    const auto same = [&](const char* name) { return equal(*one->find(name), *many->find(name)); };
    CHECK(same("data"));
    if (same("rpn_cls_score") && same("rpn_bbox_pred")) {
      for (const char* name : {"rpn_cls_prob_reshape", "rois", "roi_scores"}) CHECK(same(name));
      CHECK(tool::read_file(scene.dir / "p1") == tool::read_file(scene.dir / ("p" + n)));
    }
    if (same("rois") && same("conv2")) CHECK(same("pool5"));
    if (same("rois") && same("cls_score") && same("bbox_pred")) {
      for (const char* name : {"cls_prob", "pred_boxes", "detections"}) CHECK(same(name));
      CHECK(tool::read_file(scene.dir / "j1") == tool::read_file(scene.dir / ("j" + n)));
    }
    // Small maps leave oneDNN nothing to split differently, so the conditions above hold and were not empty.
    CHECK((same("rpn_cls_score") && same("rpn_bbox_pred") && same("cls_score") && same("bbox_pred")));
  }
}
