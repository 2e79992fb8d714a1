// `frcnn inspect` and `frcnn doctor`.
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "catch.h"
#include "cli/run_tool.h"
#include "cli/tiny_model.h"

using namespace frcnn;
using Json = nlohmann::ordered_json;
using tool::run;
using tool::TempDir;

namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

Json inspect(std::vector<std::string> more) {
  more.insert(more.begin(), "inspect");
  more.push_back("--json");
  const auto result = run(more);
  INFO(result.err);
  REQUIRE(result.code == 0);
  return Json::parse(result.out);
}

const Json& layer(const Json& json, const std::string& output) {
  for (const Json& row : json["layers"])
    if (row["output"] == output) return row;
  FAIL("no layer makes " << output);
  return json;
}

}  // namespace

TEST_CASE("inspect counts what the arithmetic says") {
  const TempDir dir;
  tiny::save(dir / "m");
  const Json json = inspect({dir / "m", "--input", "64x96"});
  CHECK(json["kind"] == "detector");
  CHECK(json["input"] == Json({64, 96}));
  std::int64_t parameters = 0;
  for (const auto& [name, tensor] : tiny::tensors(tiny::config())) {
    parameters += static_cast<std::int64_t>(tensor.values.size());
  }
  CHECK(json["parameters"] == parameters);
  CHECK(json["weight_bytes"] == parameters * 4);
  CHECK(json["weight_types"] == Json::array({"f32"}));
  std::int64_t of_layers = 0;
  double flops = 0;
  for (const Json& row : json["layers"]) {
    of_layers += row["parameters"].get<std::int64_t>();
    flops += row["flops"].get<double>();
  }
  CHECK(of_layers == parameters);
  CHECK(json["flops"].get<double>() == Approx(flops));
  CHECK(layer(json, "conv1")["shape"] == "1x8x32x48");
  CHECK(layer(json, "conv1")["parameters"] == 8 * 27 + 8);
  CHECK(layer(json, "conv1")["flops"].get<double>() == Approx(2.0 * 32 * 48 * 8 * 27));
  CHECK(layer(json, "fc6")["flops"].get<double>() == Approx(2.0 * 30 * 16 * 72));
  CHECK(json["memory"]["arena_bytes"] <= json["memory"]["activation_bytes"].get<double>() * 2);
  CHECK(json["memory"]["arena_bytes"] > 0);
  CHECK(!json["memory"]["buffers"].empty());
  CHECK(json["config"]["classes"].dump() == R"(["__background__","cat","dog"])");
}

TEST_CASE("inspect takes the model's own size, prints a table and draws the graph") {
  const TempDir dir;
  tiny::save(dir / "m");
  CHECK(inspect({dir / "m"})["input"] == Json({64, 96}));
  CHECK(inspect({dir / "m", "--input", "33x47"})["input"] == Json({33, 47}));
  const auto result = run({"inspect", dir / "m", "--dot", dir / "m.dot"});
  CHECK(result.code == 0);
  for (const char* part : {"conv1", "fc7", "Parameters", "GFLOP", "arena", "score_threshold", "dog"}) {
    INFO(part);
    CHECK(contains(result.out, part));
  }
  const std::string dot = tool::read_file(dir / "m.dot");
  CHECK(dot.rfind("digraph", 0) == 0);
  CHECK(contains(dot, "conv2"));
  CHECK(contains(dot, "->"));
}

TEST_CASE("inspect shows backbones") {
  const TempDir dir;
  tiny::save_backbone(dir / "b");
  const Json json = inspect({dir / "b", "--input", "40x40"});
  CHECK(json["kind"] == "backbone");
  CHECK(layer(json, "conv2")["shape"] == "1x8x5x5");
  CHECK(contains(run({"inspect", dir / "b"}).out, "backbone"));
}

TEST_CASE("doctor tells devices, machine, libraries and build") {
  const auto human = run({"doctor"});
  CHECK(human.code == 0);
  CHECK(human.err.empty());
  const auto result = run({"doctor", "--json"});
  CHECK(result.code == 0);
  const Json json = Json::parse(result.out);
  for (const char* section : {"Devices", "Machine", "Libraries", "Build"}) {
    INFO(section);
    CHECK(json.contains(section));
    CHECK(contains(human.out, section));
  }
  for (const char* name : {"cpu", "cuda", "NVIDIA driver", "CUDA in this build"})
    CHECK(!json["Devices"][name].get<std::string>().empty());
  // Whatever this build and machine are, --device cuda does what is said here, and auto what is concluded.
  const auto cuda = json["Devices"]["cuda"].get<std::string>();
  const bool ready = cuda == "ready as cuda:0";
  CHECK((ready || cuda.rfind("not usable: cuda", 0) == 0));
  CHECK(contains(json["Devices"]["meaning"].dump(), ready ? "auto means cuda:0" : "auto means cpu"));
  CHECK(json["Devices"].contains("cuda:0") == ready);
  if (json["Devices"]["CUDA in this build"] == "no") CHECK(contains(cuda, "this build has no CUDA device"));
  for (const char* name : {"oneDNN", "protobuf"}) {
    CHECK(contains(json["Libraries"][name].get<std::string>(), "."));
  }
}
