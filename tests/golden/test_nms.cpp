#include <set>

#include "golden/box_ops.h"

using namespace frcnn;

namespace {

// "30" in a tensor's name is a threshold of 0.30.
float threshold_of(const std::string& percent) { return static_cast<float>(std::stod(percent) / 100); }

}  // namespace

TEST_CASE("golden: suppression with distinct scores") {
  const auto file = golden::open("nms.safetensors");
  if (!file) return;
  golden::Tally tally("nms");
  for (const auto& name : golden::matching(*file, R"(keep_(\d+)_t(\d+))")) {
    const auto keep =
        golden::nms(golden::values(*file, "boxes_" + name[1]), golden::values(*file, "scores_" + name[1]),
                    threshold_of(name[2]), Suppress::above);
    tally.equal(name[0], keep, golden::values<std::int64_t>(*file, name[0]));
  }
  tally.finish();
}

TEST_CASE("golden: suppression, degenerate boxes") {
  const auto file = golden::open("nms.safetensors");
  if (!file) return;
  golden::Tally tally("nms degen");
  for (const auto& name : golden::matching(*file, R"(degen_keep_t(\d+))")) {
    const auto keep = golden::nms(golden::values(*file, "degen_boxes"), golden::values(*file, "degen_scores"),
                                  threshold_of(name[1]), Suppress::above);
    tally.equal(name[0], keep, golden::values<std::int64_t>(*file, name[0]));
  }
  tally.finish();
}

TEST_CASE("golden: an overlap of exactly the threshold") {
  const auto file = golden::open("nms.safetensors");
  if (!file) return;
  golden::Tally tally("nms exact");
  for (const auto& name : golden::matching(*file, R"(exact_keep_t(\d+)_(gt|ge))")) {
    const auto keep =
        golden::nms(golden::values(*file, "exact_boxes"), golden::values(*file, "exact_scores"),
                    threshold_of(name[1]), name[2] == "gt" ? Suppress::above : Suppress::at_or_above);
    tally.equal(name[0], keep, golden::values<std::int64_t>(*file, name[0]));
  }
  tally.finish();
}

// Equal scores: our order is by ascending index, which is the reference's first variant.
TEST_CASE("golden: suppression with equal scores") {
  const auto file = golden::open("nms.safetensors");
  if (!file) return;
  golden::Tally tally("nms ties");
  const auto boxes = golden::values(*file, "tie_boxes"), scores = golden::values(*file, "tie_scores");
  for (const auto& name : golden::matching(*file, R"(tie_keep_lowindexfirst_t(\d+))")) {
    tally.equal(name[0], golden::nms(boxes, scores, threshold_of(name[1]), Suppress::above),
                golden::values<std::int64_t>(*file, name[0]));
  }
  tally.finish();
}

// Published vectors with widths that lack the +1: the same boxes with their far corner moved in by one pixel.
TEST_CASE("golden: published suppression vectors") {
  const auto json = golden::open_json("published_numbers.json");
  if (json.is_null()) return;
  golden::Tally tally("published nms");
  for (const auto& [key, entry] : json.items()) {
    std::smatch match;
    const std::regex pattern(R"(nms_iou([\d.]+)_offset0)");
    if (!std::regex_match(key, match, pattern)) continue;
    std::vector<float> boxes;
    for (const auto& box : entry.at("boxes")) {
      for (std::size_t k = 0; k < 4; ++k) boxes.push_back(box.at(k).get<float>() - (k < 2 ? 0.0f : 1.0f));
    }
    const auto keep = golden::nms(boxes, entry.at("scores").get<std::vector<float>>(), std::stof(match[1]),
                                  Suppress::above);
    tally.equal(key, keep, entry.at("keep").get<std::vector<std::int64_t>>());
  }
  tally.finish();
}
