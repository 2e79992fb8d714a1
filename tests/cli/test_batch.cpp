// Option --batch of `frcnn detect`, `eval` and `bench`.
#include <filesystem>
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
using tool::write_file;

namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// Five pictures of one size.
struct Pictures {
  tool::TempDir dir;
  std::string model = dir / "m.safetensors";
  std::vector<std::string> paths;
  Pictures() {
    tiny::save(model);
    for (int i = 0; i < 5; ++i) {
      paths.push_back(dir / ("p" + std::to_string(i) + ".png"));
      write_file(paths.back(), png::picture(100, 70));
    }
  }
  tool::Result detect(const std::vector<std::string>& images, const std::vector<std::string>& more) const {
    std::vector<std::string> arguments{"detect", model, "--device", "cpu", "--score", "0.05", "--json", "-"};
    arguments.insert(arguments.end(), images.begin(), images.end());
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }
  Json json(const std::vector<std::string>& images, const std::vector<std::string>& more) const {
    const auto result = detect(images, more);
    INFO(result.err);
    REQUIRE(result.code == 0);
    return Json::parse(result.out);
  }
};

}  // namespace

TEST_CASE("detect --batch: images of one size give what they give one by one, the last batch short or not") {
  const Pictures p;
  const Json single = p.json(p.paths, {});
  REQUIRE(single["images"].size() == 5);
  CHECK_FALSE(single["images"][4]["detections"].empty());
  for (const char* batch : {"1", "2", "5", "64"}) {
    INFO(batch);
    CHECK(p.json(p.paths, {"--batch", batch}) == single);
  }
  // Drawings, proposals and their files are each image's own.
  const std::string out = p.dir / "proposals.json", alone = p.dir / "alone.json", drawn = p.dir / "drawn";
  p.json(p.paths, {"--batch", "3", "--proposals-out", out, "--draw", drawn});
  p.json(p.paths, {"--proposals-out", alone});
  CHECK(tool::read_file(out) == tool::read_file(alone));
  for (const char* name : {"p0.png", "p4.png"})
    CHECK(std::filesystem::exists(std::filesystem::path(drawn) / name));
  const Json given = p.json(p.paths, {"--batch", "3", "--proposals", out});
  CHECK(given == p.json(p.paths, {"--proposals", out}));
}

TEST_CASE("detect --batch: other sizes and a broken file go through the same batch") {
  const Pictures p;
  const std::string upright = p.dir / "upright.png", broken = p.dir / "broken.png";
  write_file(upright, png::picture(40, 90));
  write_file(broken, "no picture");
  const std::vector<std::string> images{p.paths[0], broken, upright, p.paths[1]};
  const auto result = p.detect(images, {"--batch", "4"});
  CHECK(result.code == 1);
  CHECK(contains(result.err, "broken.png"));
  const Json json = Json::parse(result.out);
  REQUIRE(json["images"].size() == 3);
  CHECK(json["images"][0]["file"] == p.paths[0]);
  CHECK(json["images"][1]["file"] == upright);
  CHECK(json["images"][1]["width"] == 40);
  CHECK(json["images"][2]["file"] == p.paths[1]);
  for (const Json& image : json["images"]) CHECK_FALSE(image["detections"].empty());
  CHECK(json["images"][0]["detections"] == json["images"][2]["detections"]);
}

TEST_CASE("detect --batch: an image that cannot be detected in does not take its batch with it") {
  const Pictures p;
  const std::string flat = p.dir / "flat.png";
  write_file(flat, png::picture(4000, 1));
  const auto result = p.detect({p.paths[0], flat, p.paths[1]}, {"--batch", "3"});
  CHECK(result.code == 1);
  CHECK(contains(result.err, flat));
  CHECK(contains(result.err, "no pixel left"));
  CHECK_FALSE(contains(result.err, "image 1:"));
  CHECK(Json::parse(result.out)["images"] == p.json({p.paths[0], p.paths[1]}, {})["images"]);
}

TEST_CASE("detect --batch --timing gives each image its share") {
  const Pictures p;
  const Json json = p.json({p.paths[0], p.paths[1], p.paths[2]}, {"--batch", "3", "--timing"});
  REQUIRE(json["images"].size() == 3);
  for (const Json& image : json["images"]) {
    double sum = 0;
    for (const auto& [stage, value] : image["ms"].items())
      if (stage != "total") sum += value.get<double>();
    CHECK(image["ms"]["backbone"] == json["images"][0]["ms"]["backbone"]);
    CHECK(image["ms"]["backbone"].get<double>() > 0);
    CHECK(sum <= image["ms"]["total"].get<double>());
  }
}

TEST_CASE("bench --batch times batches and counts images") {
  const Pictures p;
  const auto json = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments{"bench", p.model,    "--device", "cpu",    "--iters",
                                       "6",     "--warmup", "1",        "--json", "-"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const auto result = run(arguments);
    INFO(result.err);
    REQUIRE(result.code == 0);
    return Json::parse(result.out);
  };
  const Json one = json({}), four = json({"--batch", "4", "--per-layer"});
  CHECK(four["batch"] == 4);
  CHECK(four["samples_ms"].size() == 6);
  CHECK(four["images_per_s"].get<double>() <= 4.004 / (four["mean_ms"].get<double>() / 1000));
  CHECK(four["images_per_s"].get<double>() > 2 / (four["mean_ms"].get<double>() / 1000));
  CHECK(four["arena_bytes"].get<double>() > 2 * one["arena_bytes"].get<double>());
  CHECK(four["arena_reserved_bytes"].get<double>() >= four["arena_bytes"].get<double>());
  std::vector<double> conv1;
  for (const Json& layer : four["layers"])
    if (layer["layer"] == "conv1") conv1.push_back(layer["gflop"]);
  REQUIRE(conv1.size() == 1);
  CHECK(conv1[0] == Approx(4 * 2.0 * 32 * 48 * 8 * 27 / 1e9));
  const Json random = json({"--batch", "3", "--sizes", "random", "--concurrency", "2", "--threads", "1"});
  CHECK(random["samples_ms"].size() == 12);
  const auto text = run({"bench", p.model, "--device", "cpu", "--iters", "2", "--batch", "2"});
  CHECK(text.code == 0);
  CHECK(contains(text.out, "batches of 2"));
  CHECK(contains(text.out, "2 batches after 3 for warm-up"));
}

TEST_CASE("batches: --batch takes whole numbers from 1 on, and every help names it") {
  const Pictures p;
  for (const char* wrong : {"0", "-1", "2.5", "many"}) {
    INFO(wrong);
    CHECK(p.detect(p.paths, {"--batch", wrong}).code == 2);
    CHECK(run({"bench", p.model, "--batch", wrong}).code == 2);
    CHECK(run({"eval", p.model, "--data", p.dir / "", "--set", "test", "--batch", wrong}).code == 2);
  }
  for (const char* command : {"detect", "eval", "bench"})
    CHECK(contains(run({command, "--help"}).out, "--batch"));
}
