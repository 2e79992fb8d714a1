#include "model_io/detections_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "frcnn/error.h"
#include "model_io/json_error.h"
#include "model_io/whole_file.h"

namespace frcnn {
namespace {

using Json = nlohmann::json;

// Writing: by hand, because the library prints a float as the double next to it, and because one line per detection
// reads better than either of its two layouts.

template <typename Number>
void append_number(std::string& out, Number value) {
  if (!std::isfinite(value)) {                 // JSON has no such number; detectors refuse them earlier
    out += "null";
    return;
  }
  if (value == 0 && std::signbit(value)) {     // "-0" would be read as an integer, which has no sign there
    out += "-0.0";
    return;
  }
  char text[48];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  out.append(text, end);
}

void append_text(std::string& out, const std::string& text) {
  out += Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

void append_box(std::string& out, const std::array<float, 4>& box) {
  for (std::size_t i = 0; i < 4; ++i) {
    out += i == 0 ? '[' : ',';
    append_number(out, box[i]);
  }
  out += ']';
}

void append_times(std::string& out, const StageTimes& ms) {
  const std::pair<const char*, const std::optional<double>*> stages[] = {
      {"decode", &ms.decode}, {"preprocess", &ms.preprocess}, {"backbone", &ms.backbone}, {"rpn", &ms.rpn},
      {"proposals", &ms.proposals}, {"head", &ms.head}, {"total", &ms.total}};
  char separator = '{';
  for (const auto& [name, value] : stages) {
    out += fmt::format("{}\"{}\":", separator, name);
    if (*value) out += fmt::format("{:.3f}", **value);
    else out += "null";
    separator = ',';
  }
  out += '}';
}

// Reading: each step carries the place it stands at, so that a message can name it.

[[noreturn]] void fail(const std::string& where, const std::string& what) {
  throw Error(ErrorCode::bad_file, fmt::format("{}: {}", where, what));
}

const Json& member(const Json& object, const char* key, const std::string& where) {
  if (!object.is_object()) fail(where, fmt::format("expected an object, found {}", object.type_name()));
  const auto found = object.find(key);
  if (found == object.end()) fail(where, fmt::format("\"{}\" is missing", key));
  return *found;
}

const Json& array_of(const Json& value, const std::string& where) {
  if (!value.is_array()) fail(where, fmt::format("expected an array, found {}", value.type_name()));
  return value;
}

std::string text_of(const Json& value, const std::string& where) {
  if (!value.is_string()) fail(where, fmt::format("expected a string, found {}", value.type_name()));
  return value.get<std::string>();
}

double number_of(const Json& value, const std::string& where) {
  if (!value.is_number()) fail(where, fmt::format("expected a number, found {}", value.type_name()));
  return value.get<double>();
}

float float_of(const Json& value, const std::string& where) {
  const double number = number_of(value, where);
  // The largest float is about 3.4e38; converting more than that is undefined.
  if (!(std::abs(number) <= 3e38)) fail(where, fmt::format("{} is out of range", number));
  return static_cast<float>(number);
}

std::int64_t count_of(const Json& value, std::int64_t most, const std::string& where) {
  const double number = number_of(value, where);
  if (!(number >= 0 && number <= static_cast<double>(most)) || number != std::floor(number)) {
    fail(where, fmt::format("{} is not a whole number of 0 to {}", number, most));
  }
  return static_cast<std::int64_t>(number);
}

std::array<float, 4> box_of(const Json& value, const std::string& where) {
  if (array_of(value, where).size() != 4) fail(where, fmt::format("expected 4 numbers, found {}", value.size()));
  std::array<float, 4> box{};
  for (std::size_t i = 0; i < 4; ++i) box[i] = float_of(value[i], where);
  return box;
}

std::string optional_text(const Json& object, const char* key, const std::string& name) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? std::string() : text_of(*found, name + ": " + key);
}

std::int64_t optional_count(const Json& object, const char* key, std::int64_t most, const std::string& where) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? 0 : count_of(*found, most, where + "." + key);
}

Json parse(std::string_view text, const std::string& name) {
  try {
    return Json::parse(text.begin(), text.end());
  } catch (const Json::exception& error) {
    fail(name, "not JSON: " + json_problem(error, text));
  }
}

ImageDetections image_from(const Json& json, const std::string& where) {
  ImageDetections image;
  image.file = text_of(member(json, "file", where), where + ".file");
  image.width = static_cast<int>(optional_count(json, "width", 1 << 30, where));
  image.height = static_cast<int>(optional_count(json, "height", 1 << 30, where));
  if (json.contains("scale") && !json["scale"].is_null()) image.scale = number_of(json["scale"], where + ".scale");
  image.proposals = optional_count(json, "proposals", std::int64_t{1} << 40, where);
  const Json& list = array_of(member(json, "detections", where), where + ".detections");
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string at = fmt::format("{}.detections[{}]", where, i);
    LabelledDetection detection;
    detection.label = text_of(member(list[i], "label", at), at + ".label");
    detection.class_id = static_cast<int>(optional_count(list[i], "class_id", 1 << 30, at));
    detection.score = float_of(member(list[i], "score", at), at + ".score");
    detection.box = box_of(member(list[i], "box", at), at + ".box");
    image.detections.push_back(std::move(detection));
  }
  return image;
}

}  // namespace

ImageDetections labelled(const std::string& file, const DetectResult& result, std::span<const std::string> classes,
                         float min_score) {
  ImageDetections image{file, result.width, result.height, result.scale, result.proposal_count, {}, {}};
  for (const Detection& found : result.detections) {
    if (found.score < min_score) continue;
    const auto id = static_cast<std::size_t>(found.class_id);
    if (id >= classes.size()) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("{}: a detection of class {}, but only {} classes have names", file, id, classes.size()));
    }
    image.detections.push_back({classes[id], found.class_id, found.score, found.box});
  }
  std::stable_sort(image.detections.begin(), image.detections.end(),
                   [](const auto& a, const auto& b) { return a.score > b.score; });
  return image;
}

std::string detections_to_json(const DetectionsFile& detections) {
  std::string out = "{\"model\":";
  append_text(out, detections.model);
  out += ",\"device\":";
  append_text(out, detections.device);
  out += ",\"precision\":";
  append_text(out, detections.precision);
  out += ",\"images\":[";
  const char* image_separator = "\n";
  for (const ImageDetections& image : detections.images) {
    out += image_separator;
    image_separator = ",\n";
    out += "{\"file\":";
    append_text(out, image.file);
    out += fmt::format(",\"width\":{},\"height\":{},\"scale\":", image.width, image.height);
    append_number(out, image.scale);
    out += fmt::format(",\"proposals\":{},\"detections\":[", image.proposals);
    const char* separator = "\n  ";
    for (const LabelledDetection& detection : image.detections) {
      out += separator;
      separator = ",\n  ";
      out += "{\"label\":";
      append_text(out, detection.label);
      out += fmt::format(",\"class_id\":{},\"score\":", detection.class_id);
      append_number(out, detection.score);
      out += ",\"box\":";
      append_box(out, detection.box);
      out += '}';
    }
    out += ']';
    if (image.ms) {
      out += ",\"ms\":";
      append_times(out, *image.ms);
    }
    out += '}';
  }
  out += "]}\n";
  return out;
}

std::string proposals_to_json(std::span<const ImageProposals> images) {
  std::string out = "{\"images\":[";
  const char* separator = "\n";
  for (const ImageProposals& image : images) {
    out += separator;
    separator = ",\n";
    out += "{\"file\":";
    append_text(out, image.file);
    out += ",\"boxes\":[";
    for (std::size_t i = 0; i < image.proposals.size(); ++i) {
      if (i > 0) out += ',';
      append_box(out, image.proposals[i].box);
    }
    out += "],\"scores\":[";
    for (std::size_t i = 0; i < image.proposals.size(); ++i) {
      if (i > 0) out += ',';
      append_number(out, image.proposals[i].score);
    }
    out += "]}";
  }
  out += "]}\n";
  return out;
}

DetectionsFile detections_from_json(std::string_view text, const std::string& name) {
  const Json json = parse(text, name);
  DetectionsFile detections;
  const Json& images = array_of(member(json, "images", name), name + ": images");
  detections.model = optional_text(json, "model", name);
  detections.device = optional_text(json, "device", name);
  detections.precision = optional_text(json, "precision", name);
  for (std::size_t i = 0; i < images.size(); ++i) {
    detections.images.push_back(image_from(images[i], fmt::format("{}: images[{}]", name, i)));
  }
  return detections;
}

std::vector<ImageProposals> proposals_from_json(std::string_view text, const std::string& name) {
  const Json json = parse(text, name);
  std::vector<ImageProposals> result;
  const Json& images = array_of(member(json, "images", name), name + ": images");
  for (std::size_t i = 0; i < images.size(); ++i) {
    const std::string where = fmt::format("{}: images[{}]", name, i);
    ImageProposals image;
    image.file = text_of(member(images[i], "file", where), where + ".file");
    const Json& boxes = array_of(member(images[i], "boxes", where), where + ".boxes");
    const Json& scores = array_of(member(images[i], "scores", where), where + ".scores");
    if (boxes.size() != scores.size()) {
      fail(where, fmt::format("{} boxes but {} scores", boxes.size(), scores.size()));
    }
    for (std::size_t k = 0; k < boxes.size(); ++k) {
      image.proposals.push_back({float_of(scores[k], fmt::format("{}.scores[{}]", where, k)),
                                 box_of(boxes[k], fmt::format("{}.boxes[{}]", where, k))});
    }
    result.push_back(std::move(image));
  }
  return result;
}

DetectionsFile read_detections(const std::string& path) {
  return detections_from_json(read_whole_file(path, std::size_t{1} << 30), path);
}

std::vector<ImageProposals> read_proposals(const std::string& path) {
  return proposals_from_json(read_whole_file(path, std::size_t{1} << 30), path);
}

}  // namespace frcnn
