#include <nlohmann/json.hpp>
#include <set>

#include "model_io/model_file.h"
#include "scratch.h"
#include "small_models.h"

namespace frcnn {
namespace {

using Json = nlohmann::ordered_json;

// The small model's JSON with one change.
template <typename Change>
std::string changed(const Change& change) {
  Json json = Json::parse(config_to_json(small_models::config()));
  change(json);
  return json.dump();
}

template <typename Change>
void refused(const Change& change, std::initializer_list<std::string> parts, ErrorCode code = ErrorCode::bad_model) {
  scratch::check_error([&] { config_from_json(changed(change), "m.safetensors"); }, code, parts);
}

void not_a_document(const std::string& text, const std::string& why) {
  scratch::check_error([&] { config_from_json(text, "m.safetensors"); }, ErrorCode::bad_file, {"m.safetensors", why});
}

}  // namespace

TEST_CASE("config: JSON is one line and comes back the same") {
  const ModelConfig config = small_models::config();
  const std::string json = config_to_json(config);
  CHECK(json.find('\n') == std::string::npos);
  CHECK(json.rfind(R"({"format_version":1,"kind":"detector","name":"small","backbone":[{"kind":"conv","name":"conv1")", 0) == 0);
  CHECK(json.find(R"("alpha":0.0001,"beta":0.75,"k":2.0)") != std::string::npos);   // shortest floats
  const ModelConfig back = config_from_json(json, "m");
  CHECK(config_to_json(back) == json);
  CHECK(back.classes == config.classes);
  CHECK(back.backbone[1].lrn.alpha == 1e-4f);
  CHECK(back.backbone[2].pool.rounding == Rounding::floor);
  CHECK(back.backbone[3].relu == false);
  CHECK(back.anchor_scales == config.anchor_scales);
  CHECK(back.names.roi_pool == "roi_pool_conv5");
}

TEST_CASE("config: every field travels") {
  // Each field gets a value other than its default by --set; the JSON must carry it into a new object.
  const std::pair<const char*, const char*> values[] = {
      {"name", "other"}, {"classes", "a,b"}, {"pixel_mean", "1,2.5,3"}, {"short_side", "480"}, {"long_side", "640"},
      {"feat_stride", "8"}, {"anchor_rule", "paper"}, {"anchor_base_size", "12.5"}, {"anchor_ratios", "1,3"},
      {"anchor_scales", "4"}, {"rpn_min_size", "0"}, {"pre_nms_top_n", "-1"}, {"post_nms_top_n", "17"}, {"rpn_nms", "0.65"},
      {"suppress", "at_or_above"}, {"roi_op", "align"}, {"pooled_h", "5"}, {"pooled_w", "14"}, {"spatial_scale", "0.125"},
      {"roi_sampling_ratio", "2"}, {"roi_aligned", "true"}, {"dropout_test_scale", "0.25"}, {"score_threshold", "0"},
      {"nms", "0.45"}, {"max_detections", "-1"}, {"keep_ties", "no"}, {"rpn_conv", "r"}, {"rpn_top", "t"},
      {"roi_pool", "p"}};
  const Json before = Json::parse(config_to_json(small_models::config()));
  std::set<std::string> seen{"format_version", "kind", "backbone", "names"};
  for (const auto& [key, value] : values) {
    INFO(key);
    ModelConfig config = small_models::config();
    set_config(config, key, value);
    const std::string json = config_to_json(config);
    const Json after = Json::parse(json);
    const std::string changed_key = before.contains(key) ? key : "names";
    for (const auto& [k, v] : before.items()) CHECK((after[k] == v) == (k != changed_key));
    CHECK(config_to_json(config_from_json(json, "m")) == json);
    seen.insert(key);
  }
  for (const auto& [key, value] : before.items()) CHECK(seen.count(key) == 1);
}

TEST_CASE("config: set_config reads lists, words and short cuts") {
  ModelConfig config = small_models::config();
  set_config(config, "pixel_mean", " 102.9801, 115.9465 ,122.7717 ");
  CHECK(config.pixel_mean == std::array<double, 3>{102.9801, 115.9465, 122.7717});
  set_config(config, "classes", "red cell, white cell");
  CHECK(config.classes == std::vector<std::string>{"__background__", "red cell", "white cell"});
  set_config(config, "classes", "__background__,x");
  CHECK(config.classes == std::vector<std::string>{"__background__", "x"});
  set_config(config, "classes", "background,x");
  CHECK(config.classes == std::vector<std::string>{"background", "x"});
  set_config(config, "pool_rounding", "ceil");
  CHECK(config.backbone[2].pool.rounding == Rounding::ceil);
  set_config(config, "suppress", "above");
  CHECK(config.suppress == Suppress::above);
  set_config(config, "nms", "1e-1");
  CHECK(config.nms == 0.1);
}

TEST_CASE("config: set_config refuses by name and changes nothing") {
  const std::pair<const char*, const char*> bad[] = {
      {"pixel_mean", "1,2"}, {"pixel_mean", "1,2,3,4"}, {"pixel_mean", "1,2,256"}, {"pixel_mean", "1,,3"}, {"pixel_mean", ""},
      {"short_side", "0"}, {"short_side", "1.5"}, {"short_side", "600px"}, {"short_side", "99999999999999999999"},
      {"long_side", "-1"}, {"feat_stride", "0"}, {"feat_stride", "nan"}, {"feat_stride", "inf"}, {"anchor_rule", "matlab"},
      {"anchor_base_size", "-16"}, {"anchor_ratios", ""}, {"anchor_ratios", "1,0"}, {"anchor_scales", "8,x"},
      {"rpn_min_size", "-1"}, {"pre_nms_top_n", "-2"}, {"post_nms_top_n", "-2"}, {"rpn_nms", "1.01"}, {"suppress", "ABOVE"},
      {"roi_op", "warp"}, {"pooled_h", "0"}, {"pooled_w", "1000"}, {"spatial_scale", "-0.1"}, {"roi_sampling_ratio", "-1"},
      {"roi_aligned", "maybe"}, {"dropout_test_scale", "0"}, {"score_threshold", "1.5"}, {"nms", "-0.1"},
      {"max_detections", "lots"}, {"keep_ties", ""}, {"classes", "a,a"}, {"classes", "a,,b"}, {"classes", ""},
      {"classes", "a,b\x1b[0m"}, {"classes", "a,__background__,a"}, {"rpn_conv", ""}, {"pool_rounding", "round"}};
  const std::string before = config_to_json(small_models::config());
  for (const auto& [key, value] : bad) {
    INFO(key << "=" << value);
    ModelConfig config = small_models::config();
    scratch::check_error([&, key = key, value = value] { set_config(config, key, value); }, ErrorCode::invalid_argument, {std::string(key) + ": must "});
    CHECK(config_to_json(config) == before);
  }
  ModelConfig config;
  scratch::check_error([&] { set_config(config, "nmss", "1"); }, ErrorCode::invalid_argument,
                       {"'nmss'", "pixel_mean, short_side", "score_threshold, nms", "pool_rounding"});
  for (const char* unsettable : {"kind", "backbone", "names", "format_version", ""})
    scratch::check_error([&] { set_config(config, unsettable, "1"); }, ErrorCode::invalid_argument, {"there is no key"});
}

TEST_CASE("config: documents that are not configurations") {
  not_a_document("", "not JSON");
  not_a_document("{", "not JSON: the text ends");
  not_a_document("{\n  \"a\": x}", "line 2, column 8 (byte 10)");
  not_a_document("[]", "not a JSON object");
  not_a_document("1", "not a JSON object");
  not_a_document("{}", "lacks the key 'format_version'");
  not_a_document(R"({"format_version":"1"})", "format_version \"1\"");
  not_a_document(R"({"format_version":0})", "format_version 0");
  not_a_document(R"({"format_version":1,"format_version":1})", "'format_version' twice");
  not_a_document(R"({"format_version":1,"names":{"a":1,"a":2}})", "'a' twice");
  not_a_document("{\"\xff\":1}", "not JSON");
  not_a_document("{\"a\":" + std::string(100000, '['), "nested too deeply");
  not_a_document(std::string(5 << 20, ' '), "5242880 bytes");
  not_a_document(config_to_json(small_models::config()) + "x", "not JSON");
}

TEST_CASE("config: a newer format says so before anything else") {
  refused([](Json& j) { j["format_version"] = 2; j["new_key"] = 1; }, {"format_version 2", "newer"}, ErrorCode::unsupported);
}

TEST_CASE("config: keys that are unknown or missing are named") {
  refused([](Json& j) { j["colour"] = 1; }, {"m.safetensors", "unknown key 'colour'"});
  refused([](Json& j) { j["rpn_conv"] = "x"; }, {"unknown key 'rpn_conv'"});   // only --set has this one
  refused([](Json& j) { j["backbone"][0]["dilation"] = 2; }, {"backbone: layer 0", "'dilation'"});
  refused([](Json& j) { j["names"]["x"] = "y"; }, {"names", "'x'"});
  const Json all = Json::parse(config_to_json(small_models::config()));
  for (const auto& [key, value] : all.items()) {
    if (key == "format_version") continue;
    refused([name = key](Json& j) { j.erase(name); }, {"'" + key + "' is missing"});
    refused([name = key](Json& j) { j[name] = nullptr; }, {key + ": must be"});
  }
  refused([](Json& j) { j["backbone"][1].erase("beta"); }, {"backbone: layer 1: lacks the key 'beta'"});
  refused([](Json& j) { j["backbone"][1].erase("kind"); }, {"backbone: layer 1: lacks the key 'kind'"});
}

TEST_CASE("config: values out of range are named") {
  refused([](Json& j) { j["backbone"] = Json::array(); }, {"backbone"});
  refused([](Json& j) { j["backbone"][0]["kind"] = "dropout"; }, {"backbone: layer 0: must be one of conv, lrn, max_pool"});
  refused([](Json& j) { j["backbone"][0]["stride"] = 0; }, {"backbone: layer 0: stride"});
  refused([](Json& j) { j["backbone"][0]["pad"] = 18446744073709551615ull; }, {"backbone: layer 0: pad"});
  refused([](Json& j) { j["backbone"][1]["size"] = 4; }, {"backbone: layer 1: size: must be odd"});
  refused([](Json& j) { j["backbone"][2]["pad"] = 3; }, {"backbone: layer 2: pad 3 must be below the kernel 3"});
  refused([](Json& j) { j["backbone"][3]["name"] = "conv1"; }, {"two layers named 'conv1'"});
  refused([](Json& j) { j["backbone"][3]["name"] = "fc6"; }, {"'fc6'"});
  refused([](Json& j) { j["names"]["rpn_conv"] = "conv1"; }, {"rpn_conv", "'conv1'"});
  refused([](Json& j) { j["backbone"].erase(3); j["backbone"].erase(0); }, {"no convolution"});
  refused([](Json& j) { j["classes"] = {"__background__"}; }, {"classes"});
  refused([](Json& j) { j["classes"] = {"a", 1}; }, {"classes"});
  refused([](Json& j) { j["roi_aligned"] = 1; }, {"roi_aligned: must be true or false"});
  refused([](Json& j) { j["nms"] = "0.3"; }, {"nms: must be a number"});
  refused([](Json& j) { j["post_nms_top_n"] = 1e18; }, {"post_nms_top_n"});
  refused([](Json& j) { j["pixel_mean"] = {1, 2, 1e300}; }, {"pixel_mean"});
}

}  // namespace frcnn
