// Training configurations as JSON: every field there and back, and complaints that name key and line.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "catch.h"
#include "io/scratch.h"
#include "model_io/train_config_json.h"
#include "training/presets.h"

using namespace frcnn;

namespace {

using Json = nlohmann::ordered_json;

void refused(const std::string& json, std::initializer_list<std::string> parts,
             ErrorCode code = ErrorCode::bad_file) {
  RunConfig config = preset("bccd");
  const std::string before = run_config_to_json(config);
  INFO(json);
  scratch::check_error([&] { overlay_run_config(config, json, "c.json"); }, code, parts);
  CHECK(run_config_to_json(config) == before);
}

// Another legal value of the same type.
Json changed(const Json& value, const std::string& path) {
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_string()) {
    const std::pair<const char*, const char*> words[] = {
        {"drop", "error"},  {"fatal", "skip"},      {"error", "ignore"},   {"gaussian", "he"},
        {"he", "gaussian"}, {"always", "fallback"}, {"ignore", "release"}, {"caffe", "paper"},
        {"step", "cosine"}, {"cosine", "step"}};
    for (const auto& [from, to] : words)
      if (value == from) return to;
    return "vgg13";
  }
  if (path == "frozen") return Json{"conv7"};
  if (path == "model.set") return Json{{"short_side", "300"}};
  if (path == "model.conv_widths" || path == "solver.lr_steps") return Json{11, 12};
  if (value.is_array()) {
    Json list = value;
    for (Json& item : list) item = item.get<double>() + 0.5;
    return list;
  }
  if (path == "units.input_scale" || path == "units.hidden") return value.get<double>() * 2;
  if (value.is_number_integer()) return value.get<std::int64_t>() + 1;
  return value.get<double>() * 0.75 + 0.1;
}

}  // namespace

TEST_CASE("training configuration: there and back for every preset") {
  for (const std::string& name : preset_names()) {
    const RunConfig config = preset(name);
    const std::string json = run_config_to_json(config);
    RunConfig read;
    overlay_run_config(read, json, "c.json");
    CHECK(run_config_to_json(read) == json);
    CHECK(run_config_differences(read, config).empty());
  }
}

TEST_CASE("training configuration: each field is read, written, compared and set on its own") {
  const Json base = Json::parse(run_config_to_json(preset("bccd")));
  int fields = 0;
  const auto visit = [&](const std::string& path, const Json& value, const auto& wrap) {
    INFO(path);
    ++fields;
    RunConfig config = preset("bccd");
    const Json other = changed(value, path);
    overlay_run_config(config, wrap(other).dump(), "c.json");
    const auto differences = run_config_differences(config, preset("bccd"));
    REQUIRE(differences.size() == 1);
    CHECK(differences[0].rfind(path + ": ", 0) == 0);
    Json document = Json::parse(run_config_to_json(config));
    CHECK(document != base);
    if (path == "preset" || path.rfind("model.arch", 0) == 0 || path == "model.set") return;
    // --set writes lists with commas and words without quotes.
    std::string text = other.is_string() ? other.get<std::string>() : other.dump();
    if (other.is_array()) text = text.substr(1, text.size() - 2);
    text.erase(std::remove(text.begin(), text.end(), '"'), text.end());
    RunConfig set = preset("bccd");
    set_run_config(set, path, text);
    CHECK(run_config_differences(set, config).empty());
  };
  for (const auto& [key, value] : base.items()) {
    if (key == "format_version") continue;
    if (!value.is_object()) {
      visit(key, value, [&, k = key](const Json& v) { return Json{{k, v}}; });
      continue;
    }
    for (const auto& [inner, one] : value.items())
      visit(key + "." + inner, one, [&, k = key, i = inner](const Json& v) { return Json{{k, {{i, v}}}}; });
  }
  CHECK(fields == 66);
}

TEST_CASE("training configuration: complaints name file, line and key") {
  refused("{\n \"solver\": {\n  \"base_lr\": 0.1,\n  \"lr\": 2 }\n}", {"c.json:4: unknown key 'solver.lr'"});
  refused("{\n\n \"itertions\": 3}", {"c.json:3: unknown key 'itertions'"});
  refused("{\"solver\": {\n\"policy\": \"poly\"}}",
          {"c.json:2: solver.policy: must be one of step, cosine, it is \"poly\""});
  refused("{\"seed\": -1}", {"c.json:1: seed: must be a whole number from 0"});
  refused("{\"seed\": 1.5}", {"seed: must be a whole number"});
  refused("{\"solver\": 3}", {"c.json:1: solver: must be an object, it is 3"});
  refused("{\"solver\": {\"lr_steps\": [5, 5]}}", {"solver.lr_steps: must ascend"});
  refused("{\"units\": {\"hidden\": 3}}", {"units.hidden: must be a power of two, it is 3"});
  refused("{\"roi\": {\"stds\": [1, 1, 0, 1]}}", {"roi.stds: must be a number above 0"});
  refused("{\"roi\": {\"stds\": [1, 1]}}", {"roi.stds: must be a list of 4 values, it is"});
  refused("{\"solver\": {\n\"base_rl\": 1}}",
          {"c.json:2: unknown key 'solver.base_rl'; did you mean solver.base_lr?"});
  refused("{\"base_lr\": 1}", {"unknown key 'base_lr'; did you mean solver.base_lr?"});
  refused("{\"model\": {\n\"set\": {\n\"short_sid\": 3}}}",
          {"c.json:3: model.set: there is no key 'short_sid' to set; did you mean short_side?"});
  refused("{\"model\": {\"set\": {\n\"short_side\": -3}}}", {"c.json:2: model.set.short_side: must be"});
  refused("[]", {"c.json:1: ", "not a JSON object"});
  refused("{\"seed\": 1,}", {"c.json", "not JSON"});
  refused("{\"seed\": 1, \"seed\": 2}", {"c.json", "has the key 'seed' twice"});
  refused("{\"format_version\": 2}", {"c.json:1: format_version 2 is newer"}, ErrorCode::unsupported);
  refused("{\"model\": {\"set\": {\"short_side\": {}}}}", {"model.set"});
}

TEST_CASE("training configuration: conventions of the detector, and what a document is laid over") {
  RunConfig config = preset("bccd");
  overlay_run_config(
      config,
      "{\"model\": {\"set\": {\"anchor_ratios\": [0.5, 2], \"short_side\": 300, \"keep_ties\": true}}}",
      "c.json");
  CHECK(config.model.set.at("anchor_ratios") == "0.5,2");
  CHECK(config.model.set.at("short_side") == "300");
  CHECK(config.model.set.at("keep_ties") == "true");
  CHECK(config.model.set.at("anchor_scales") == "3,8,12,16");
  set_run_config(config, "model.set.anchor_scales", "4,8");
  CHECK(config.model.set.at("anchor_scales") == "4,8");
  const RunConfigBase base = run_config_base("{\"preset\": \"bccd\", \"model\": {\"arch\": \"zf\"}}", "c");
  CHECK(base.preset == "bccd");
  CHECK(base.arch == "zf");
  CHECK(run_config_base("{}", "c").preset.empty());
  CHECK(run_config_base("{\n\"seed\": 1,\n\"preset\": \"x\"}", "c").preset_line == 3);
}

TEST_CASE("training configuration: --set") {
  RunConfig config;
  set_run_config(config, "solver.lr_steps", "7");
  CHECK(config.train.solver.lr_steps == std::vector<std::int64_t>{7});
  set_run_config(config, "frozen", "conv1,conv2");
  CHECK(config.train.frozen == std::vector<std::string>{"conv1", "conv2"});
  set_run_config(config, "frozen", "");
  CHECK(config.train.frozen.empty());
  scratch::check_error([&] { set_run_config(config, "solver.base_lr", "fast"); }, ErrorCode::invalid_argument,
                       {"solver.base_lr: must be a number"});
  scratch::check_error([&] { set_run_config(config, "lr", "1"); }, ErrorCode::invalid_argument,
                       {"no key 'lr'", "solver.base_lr", "model.set.KEY"});
  scratch::check_error([&] { set_run_config(config, "preset", "bccd"); }, ErrorCode::invalid_argument,
                       {"no key 'preset'"});
  scratch::check_error([&] { set_run_config(config, "solver.base-lr", "1"); }, ErrorCode::invalid_argument,
                       {"no key 'solver.base-lr' to set; did you mean solver.base_lr?"});
  scratch::check_error([&] { set_run_config(config, "lr", "1"); }, ErrorCode::invalid_argument,
                       {"did you mean solver.base_lr?"});
  for (const char* far : {"gravity", "x", "", "solver.precision"}) {
    INFO(far);
    try {
      set_run_config(config, far, "1");
      FAIL("taken");
    } catch (const Error& error) {
      CHECK(std::string(error.what()).find("did you mean") == std::string::npos);
    }
  }
  scratch::check_error([&] { set_run_config(config, "model.set", "{}"); }, ErrorCode::invalid_argument,
                       {"model.set: one convention at a time", "model.set.short_side=800"});
}

TEST_CASE("training configuration: thresholds that contradict each other name both keys") {
  for (const std::string& name : preset_names()) CHECK_NOTHROW(check_together(preset(name)));
  const auto contradict = [](const std::string& key, const std::string& value,
                             std::initializer_list<std::string> parts) {
    RunConfig config;
    set_run_config(config, key, value);
    scratch::check_error([&] { check_together(config); }, ErrorCode::invalid_argument, parts);
  };
  contradict("rpn.negative_iou", "0.8", {"rpn.negative_iou is 0.8 and rpn.positive_iou 0.7"});
  contradict("rpn.positive_iou", "0.2", {"rpn.negative_iou is 0.3 and rpn.positive_iou 0.2"});
  contradict("roi.background_iou_low", "0.5",
             {"roi.background_iou_low is 0.5 and roi.background_iou_high 0.5"});
  RunConfig config;  // a RoI that is both is an object
  set_run_config(config, "roi.background_iou_high", "0.6");
  set_run_config(config, "rpn.negative_iou", "0.7");
  CHECK_NOTHROW(check_together(config));
}
