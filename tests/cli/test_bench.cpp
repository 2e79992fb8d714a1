// `frcnn bench`: what it reports, and that every option does something.
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "catch.h"
#include "cli/run_tool.h"
#include "cli/tiny_model.h"
#include "kernels.h"
#include "model_io/image_file.h"

using namespace frcnn;
using tool::run;
using Json = nlohmann::json;

namespace {

const std::string picture = std::string(FRCNN_SOURCE_DIR) + "/weights/images/BloodImage_00007.jpg";

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

struct Bench {
  tool::TempDir dir;
  Bench() { tiny::save(dir / "m.safetensors"); }

  Json json(std::vector<std::string> more) const {
    std::vector<std::string> arguments{"bench", dir / "m.safetensors", "--device", "cpu", "--json", "-"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const auto result = run(arguments);
    INFO(result.err);
    REQUIRE(result.code == 0);
    return Json::parse(result.out);
  }
};

double nearest_rank(std::vector<double> samples, double q) {
  std::sort(samples.begin(), samples.end());
  return samples[static_cast<std::size_t>(std::ceil(q * static_cast<double>(samples.size()))) - 1];
}

}  // namespace

TEST_CASE("bench reports every number of its schema") {
  const Bench bench;
  const Json json =
      bench.json({"--iters", "11", "--warmup", "1", "--threads", "2", "--per-layer", "--image", picture});
  CHECK(json["schema_version"] == 1);
  for (const char* key : {"version", "commit"}) CHECK(json[key].is_string());
  for (const char* key : {"processor", "cores", "instructions", "memory", "onednn", "onednn_isa"}) {
    INFO(key);
    CHECK(json["machine"].contains(key));
  }
  CHECK(json["model"] == bench.dir / "m.safetensors");
  CHECK(json["architecture"].is_null());
  CHECK(json["device"] == "cpu");
  CHECK(json["precision"] == "fp32");
  CHECK(json["algo"] == "ours");
  CHECK(json["libraries"] == Json::array());
  CHECK(json["threads"] == 2);
  CHECK(json["input"] == Json{{"height", 64}, {"width", 96}});  // the model's own limits
  CHECK(json["image"] == picture);
  CHECK(json["batch"] == 1);
  CHECK(json["concurrency"] == 1);
  CHECK(json["sizes"] == "fixed");
  CHECK(json["pixels"] == "host");
  CHECK(json["seconds"].is_null());
  CHECK(json["known_ms"].is_null());
  CHECK(json["layer_repeats"] == 0);  // a CPU's are timed alone
  CHECK(json["iters"] == 11);
  CHECK(json["warmup"] == 1);
  const auto samples = json["samples_ms"].get<std::vector<double>>();
  REQUIRE(samples.size() == 11);
  CHECK(json["median_ms"] == nearest_rank(samples, 0.5));
  CHECK(json["p90_ms"] == nearest_rank(samples, 0.9));
  CHECK(json["p99_ms"] == nearest_rank(samples, 0.99));
  CHECK(json["p999_ms"] == nearest_rank(samples, 0.999));
  CHECK(json["mean_ms"].get<double>() == Approx(std::accumulate(samples.begin(), samples.end(), 0.0) / 11));
  CHECK(json["images_per_s"].get<double>() <= 1.001 / (json["mean_ms"].get<double>() / 1000));
  for (const char* key : {"load_ms", "first_image_ms", "proposals", "arena_bytes", "arena_reserved_bytes",
                          "packed_weight_bytes", "peak_rss_bytes"}) {
    INFO(key);
    CHECK(json[key].get<double>() > 0);
  }
  CHECK(json["arena_reserved_bytes"].get<double>() >= json["arena_bytes"].get<double>());
  REQUIRE(json["sessions"].size() == 1);
  const Json& session = json["sessions"][0];
  CHECK(session["plans"] == 1);
  CHECK(session["eager_runs"] == 1 + 1 + 11);  // the first image, warm-up, measured; then the stats are taken
  for (const char* key :
       {"graphs", "captures", "replays", "evictions", "allocations_since_plan", "synchronizations"}) {
    INFO(key);
    CHECK(session[key] == 0);  // of a CPU
  }
  CHECK(session["arena_bytes"] == json["arena_reserved_bytes"]);
  CHECK(session["packed_weight_bytes"] == json["packed_weight_bytes"]);

  double share = 0;
  std::set<std::string> stages, names;
  for (const Json& layer : json["layers"]) {
    share += layer["share"].get<double>();
    stages.insert(layer["stage"].get<std::string>());
    names.insert(layer["layer"].get<std::string>());
    CHECK(layer["ms"].get<double>() > 0);
    CHECK_FALSE(layer["kernel"].get<std::string>().empty());
    const bool product = layer["op"] == "conv2d" || layer["op"] == "linear";
    CHECK((layer["gflop"].get<double>() > 0) == product);
    CHECK(layer["gflop_per_s"].is_null() != product);
    CHECK(layer["mbytes"].get<double>() > 0);
    // 3x3 with stride 2 on 64x96 pixels, 3 channels to 8.
    if (layer["layer"] == "conv1") {
      CHECK(layer["gflop"].get<double>() == Approx(2.0 * 32 * 48 * 8 * 27 / 1e9));
      CHECK(layer["mbytes"].get<double>() == Approx(4.0 * (64 * 96 * 3 + 8 * 27 + 8 + 32 * 48 * 8) / 1e6));
    }
  }
  CHECK(share == Approx(1));
  CHECK(stages == std::set<std::string>{"preprocess", "backbone", "rpn", "proposals", "head"});
  for (const char* name : {"data", "conv1", "pool1", "conv2", "rpn_cls_score", "fc6", "detections"})
    CHECK(names.count(name) == 1);
}

TEST_CASE("bench honours its options") {
  const Bench bench;
  const Json plain = bench.json({"--iters", "2", "--input", "50x80"});
  CHECK(plain["input"] == Json{{"height", 50}, {"width", 80}});
  CHECK(plain["layers"].empty());
  CHECK(plain["image"].is_null());
  CHECK(plain["proposals"].get<int>() > 0);

  // A larger input needs more memory; no picture is needed to be of its size.
  const Json large = bench.json({"--iters", "2", "--input", "500x800", "--warmup", "0"});
  CHECK(large["arena_bytes"].get<double>() > 10 * plain["arena_bytes"].get<double>());

  const Json several = bench.json({"--iters", "3", "--concurrency", "2", "--threads", "1", "--no-graphs"});
  CHECK(several["concurrency"] == 2);
  CHECK(several["samples_ms"].size() == 6);
  CHECK(several["sessions"].size() == 2);

  const Json sizes = bench.json({"--iters", "40", "--sizes", "random"});
  CHECK(sizes["sizes"] == "random");
  CHECK(sizes["samples_ms"].size() == 40);

  const Json brief = bench.json({"--iters", "1000000", "--seconds", "0.05"});
  CHECK(brief["seconds"] == 0.05);
  CHECK(brief["samples_ms"].size() >= 1);
  CHECK(brief["samples_ms"].size() < 100000);

  if (cpu::multiplies_bf16())
    CHECK(bench.json({"--iters", "1", "--precision", "bf16"})["precision"] == "bf16");
}

TEST_CASE("bench asks for sizes the first time, and then again") {
  const Bench bench;
  const Json json = bench.json({"--iters", "5", "--warmup", "2", "--sizes", "new"});
  const auto first = json["samples_ms"].get<std::vector<double>>();
  CHECK(first.size() == 5);
  CHECK(json["known_ms"].size() == 5);
  CHECK(json["median_ms"] == nearest_rank(first, 0.5));
  CHECK(json["sessions"][0]["plans"] == 1 + 5);  // the largest size too, which came first and for warm-up
  CHECK(json["sessions"][0]["eager_runs"] == 1 + 2 + 5 * 4);
  // 64x64, 64x65, 65x64, ..., but not 64x96 itself.
  CHECK(bench.json({"--iters", "1000", "--warmup", "0", "--sizes", "new", "--input", "64x66"})["samples_ms"]
            .size() == 4);
  const auto text =
      run({"bench", bench.dir / "m.safetensors", "--device", "cpu", "--iters", "2", "--sizes", "new"});
  CHECK(text.code == 0);
  CHECK(contains(text.out, "known size   median "));
}

TEST_CASE("bench prints a table, and writes the same numbers to a file") {
  const Bench bench;
  const auto result = run(
      {"bench", bench.dir / "m.safetensors", "--iters", "3", "--per-layer", "--json", bench.dir / "b.json"});
  INFO(result.err);
  REQUIRE(result.code == 0);
  for (const char* part : {"load  ", "first image  ", "median ", "p90 ", "p99 ", "p99.9 ", "arena ",
                           "GFLOP/s", "rpn_conv/3x3", "\nsum "})
    CHECK(contains(result.out, part));
  CHECK(Json::parse(tool::read_file(bench.dir / "b.json"))["samples_ms"].size() == 3);
}

TEST_CASE(
    "bench makes a published network with random weights that find something, and keeps it when asked") {
  const tool::TempDir dir;
  const auto result = run({"bench", "--arch", "zf", "--input", "120x160", "--iters", "1", "--warmup", "0",
                           "--save-model", dir / "zf.safetensors", "--json", "-"});
  INFO(result.err);
  REQUIRE(result.code == 0);
  const Json json = Json::parse(result.out);
  CHECK(json["architecture"] == "zf");
  CHECK(json["load_ms"].is_null());
  CHECK(json["proposals"].get<int>() >= 20);
  CHECK(json["detections"].get<int>() >= 20);
  const auto again =
      run({"bench", dir / "zf.safetensors", "--input", "120x160", "--iters", "1", "--json", "-"});
  INFO(again.err);
  REQUIRE(again.code == 0);
  CHECK(Json::parse(again.out)["detections"] == json["detections"]);
  CHECK(Json::parse(again.out)["proposals"] == json["proposals"]);
}

TEST_CASE("bench knows before it measures whether its file can be written, and leaves an old one alone") {
  const Bench bench;
  const std::string model = bench.dir / "m.safetensors", none = bench.dir / "none.safetensors";
  for (const std::string& path : {bench.dir / "no/such.json", model + "/below", bench.dir / ""}) {
    const auto result = run({"bench", none, "--json", path});  // loading would fail next
    INFO(path << ": " << result.err);
    CHECK(result.code == 1);
    CHECK(contains(result.err, path));
    CHECK_FALSE(contains(result.err, none));
  }
  const std::string before = tool::read_file(model);
  const auto itself = run({"bench", model, "--json", model});
  CHECK(itself.code == 1);
  CHECK(contains(itself.err, "is read here"));
  CHECK(tool::read_file(model) == before);
  const std::string same = bench.dir / "same";
  tool::write_file(same, "mine");
  CHECK(contains(run({"bench", model, "--image", same, "--json", same}).err, "is read here"));
  CHECK(tool::read_file(same) == "mine");
  tool::write_file(bench.dir / "old.json", "old");
  CHECK(run({"bench", none, "--json", bench.dir / "old.json"}).code == 1);
  CHECK(tool::read_file(bench.dir / "old.json") == "old");
  CHECK_FALSE(std::filesystem::exists(bench.dir / "no"));
}

TEST_CASE("bench refuses what it cannot measure") {
  const Bench bench;
  const std::string model = bench.dir / "m.safetensors";
  tiny::save_backbone(bench.dir / "b.safetensors");
  struct Refusal {
    std::vector<std::string> arguments;
    int code;
    std::string says;
  };
  const Refusal refusals[] = {
      {{}, 2, "MODEL (or --arch NAME)"},
      {{model, "--arch", "zf"}, 2, "excludes --arch"},
      {{"--arch", "resnet"}, 2, "resnet"},
      {{model, "--input", "600"}, 2, "--input: expected HEIGHTxWIDTH such as 600x1000, got 600"},
      {{model, "--input", "0x5"}, 2, "got 0x5"},
      {{model, "--input", "99999x5"}, 2, "got 99999x5"},
      {{model, "--iters", "0"}, 2, "--iters"},
      {{model, "--warmup", "-1"}, 2, "--warmup"},
      {{model, "--concurrency", "0"}, 2, "--concurrency"},
      {{model, "--sizes", "many"}, 2, "--sizes"},
      {{model, "--save-model", bench.dir / "x"}, 2, "--save-model requires --arch"},
      {{model, "--per-layer", "--concurrency", "2"}, 2, "--concurrency excludes --per-layer"},
      {{model, "--per-layer", "--sizes", "random"}, 2, "--sizes excludes --per-layer"},
      {{model, "--step", "--iters", "3"}, 2, "--iters excludes --step"},
      {{model, "--step", "--seconds", "3"}, 2, "--seconds excludes --step"},
      {{model, "--step", "--json", "-"}, 2, "--step prints times"},
      {{model, "--step"}, 1, "--step: standard input has no line"},
      {{model, "--batch", "0"}, 2, "--batch"},
      {{model, "--seconds", "-1"}, 2, "--seconds"},
      {{model, "--sizes", "new", "--concurrency", "2"}, 2, "--sizes new"},
      {{model, "--sizes", "new", "--batch", "2"}, 2, "--sizes new"},
      {{model, "--sizes", "new", "--step"}, 2, "--sizes new"},
      {{model, "--sizes", "new", "--input", "64x64"}, 1, "within 64x64 there is no other size"},
      {{model, "--sizes", "new", "--iters", "5", "--seconds", "1e-9"}, 1, "--seconds: over before"},
      {{model, "--device", "cpu", "--pixels-on-device"},
       1,
       "pixels on the device: cpu computes in the host's memory"},
      {{bench.dir / "b.safetensors"}, 1, "a backbone"},
      {{model, "--image", bench.dir / "none.jpg"}, 1, "none.jpg"},
      {{bench.dir / "none.safetensors"}, 1, "none.safetensors"},
      {{model, "--device", "cpu", "--precision", "fp16"}, 1, "precision fp16"},
  };
  for (const Refusal& refusal : refusals) {
    std::vector<std::string> arguments{"bench"};
    arguments.insert(arguments.end(), refusal.arguments.begin(), refusal.arguments.end());
    const auto result = run(arguments);
    INFO(result.err);
    CHECK(result.code == refusal.code);
    CHECK(contains(result.err, refusal.says));
    CHECK((result.out.empty() || result.out == "ready\n"));  // which --step says before it reads
  }
}
