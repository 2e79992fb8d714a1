// The JSON forms of detections and proposals: exact round trips, fixed text, and errors that name the place.
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "catch.h"
#include "frcnn/error.h"
#include "model_io/detections_json.h"

namespace {

std::string message_of(const std::string& text, bool proposals = false) {
  try {
    if (proposals) frcnn::proposals_from_json(text, "f.json");
    else frcnn::detections_from_json(text, "f.json");
  } catch (const frcnn::Error& error) {
    return error.what();
  }
  return "no error";
}

float any_float(std::mt19937& random) {
  for (;;) {
    const std::uint32_t bits = static_cast<std::uint32_t>(random());
    float value;
    std::memcpy(&value, &bits, sizeof value);
    if (std::isfinite(value) && std::abs(value) < 3e38f) return value;
  }
}

}  // namespace

TEST_CASE("detections json: the text is fixed") {
  frcnn::DetectionsFile file{"m.safetensors", "cpu", "fp32", {}};
  file.images.push_back({"a \"b\".jpg", 640, 480, 1.25, 300, {{"cell", 2, 0.986391f, {0, 74.395f, 397.15f, 1e-7f}}}, {}});
  frcnn::ImageDetections timed{"c.png", 1, 2, 600, 0, {}, frcnn::StageTimes{}};
  timed.ms->decode = 1.5;
  timed.ms->total = 20;
  file.images.push_back(timed);
  CHECK(frcnn::detections_to_json(file) ==
        "{\"model\":\"m.safetensors\",\"device\":\"cpu\",\"precision\":\"fp32\",\"images\":[\n"
        "{\"file\":\"a \\\"b\\\".jpg\",\"width\":640,\"height\":480,\"scale\":1.25,\"proposals\":300,\"detections\":[\n"
        "  {\"label\":\"cell\",\"class_id\":2,\"score\":0.986391,\"box\":[0,74.395,397.15,1e-07]}]},\n"
        "{\"file\":\"c.png\",\"width\":1,\"height\":2,\"scale\":600,\"proposals\":0,\"detections\":[],\"ms\":{\"decode\":1.500,"
        "\"preprocess\":null,\"backbone\":null,\"rpn\":null,\"proposals\":null,\"head\":null,\"total\":20.000}}]}\n");
}

TEST_CASE("detections json: every float reads back bit for bit") {
  std::mt19937 random(7);
  frcnn::DetectionsFile file;
  frcnn::ImageProposals proposals{"p", {}};
  file.images.push_back({"x", 1, 1, 1.0 / 3.0, 5, {}, {}});
  for (int i = 0; i < 2000; ++i) {
    const std::array<float, 4> box{any_float(random), any_float(random), any_float(random), any_float(random)};
    file.images[0].detections.push_back({"c", 1, any_float(random), box});
    proposals.proposals.push_back({any_float(random), box});
  }
  file.images[0].detections[0].box[0] = -0.0f;
  const auto back = frcnn::detections_from_json(frcnn::detections_to_json(file), "x");
  REQUIRE(back.images.size() == 1);
  CHECK(back.images[0].scale == 1.0 / 3.0);
  REQUIRE(back.images[0].detections.size() == 2000);
  const std::vector<frcnn::ImageProposals> one{proposals};
  const auto proposals_back = frcnn::proposals_from_json(frcnn::proposals_to_json(one), "x");
  REQUIRE(proposals_back.at(0).proposals.size() == 2000);
  bool same = true;
  for (std::size_t i = 0; i < 2000; ++i) {
    same = same && back.images[0].detections[i].score == file.images[0].detections[i].score;
    same = same && back.images[0].detections[i].box == file.images[0].detections[i].box;
    same = same && proposals_back[0].proposals[i].score == proposals.proposals[i].score;
    same = same && proposals_back[0].proposals[i].box == proposals.proposals[i].box;
  }
  CHECK(same);
  CHECK(std::signbit(back.images[0].detections[0].box[0]));
  CHECK(frcnn::detections_to_json(back) == frcnn::detections_to_json(file));
}

TEST_CASE("detections json: labelled sorts by score over classes and keeps ties in order") {
  frcnn::DetectResult result;
  result.width = 10;
  result.detections = {{1, 0.5f, {1, 0, 0, 0}}, {1, 0.2f, {}}, {2, 0.9f, {}}, {2, 0.5f, {2, 0, 0, 0}}};
  const std::vector<std::string> classes{"background", "a", "b"};
  const auto image = frcnn::labelled("f", result, classes, 0.5f);
  REQUIRE(image.detections.size() == 3);
  CHECK(image.detections[0].label == "b");
  CHECK(image.detections[1].box[0] == 1);
  CHECK(image.detections[2].box[0] == 2);
  CHECK_THROWS_AS(frcnn::labelled("f", result, std::vector<std::string>{"background", "a"}, 0), frcnn::Error);
}

TEST_CASE("detections json: errors name the place") {
  CHECK(message_of("").find("f.json: not JSON: the text ends too early") == 0);
  CHECK(message_of("{\n \"images\": [\n  {\"file\" 1}]}").find("line 3, column 11 (byte 26)") != std::string::npos);
  CHECK(message_of("[1e999999]").find("too large") != std::string::npos);
  CHECK(message_of("{,").find("json.exception") == std::string::npos);
  CHECK(message_of("[]").find("f.json: expected an object, found array") == 0);
  CHECK(message_of("{}") == "f.json: \"images\" is missing");
  CHECK(message_of(R"({"images":{}})") == "f.json: images: expected an array, found object");
  CHECK(message_of(R"({"images":[{"detections":[]}]})") == "f.json: images[0]: \"file\" is missing");
  CHECK(message_of(R"({"images":[{"file":"a","detections":[{"label":"x","score":"1","box":[1,2,3,4]}]}]})") ==
        "f.json: images[0].detections[0].score: expected a number, found string");
  CHECK(message_of(R"({"images":[{"file":"a","detections":[{"label":"x","score":1,"box":[1,2,3]}]}]})") ==
        "f.json: images[0].detections[0].box: expected 4 numbers, found 3");
  CHECK(message_of(R"({"images":[{"file":"a","detections":[{"label":"x","score":1e39,"box":[1,2,3,4]}]}]})").find("out of range") !=
        std::string::npos);
  CHECK(message_of(R"({"images":[{"file":"a","width":-1,"detections":[]}]})").find("images[0].width: -1 is not a whole number") !=
        std::string::npos);
  CHECK(message_of(R"({"images":[{"file":"a","boxes":[[1,2,3,4]],"scores":[]}]})", true) == "f.json: images[0]: 1 boxes but 0 scores");
  CHECK(message_of(std::string(200000, '[')).find("not JSON") != std::string::npos);
  CHECK(message_of(R"({"images":[{"file":"a","later":{"x":[1]},"detections":[{"label":"x","score":1,"box":[1,2,3,4]}]}]})") == "no error");
}
