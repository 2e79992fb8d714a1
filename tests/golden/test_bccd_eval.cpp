// The blood-cell detector that was trained in PyTorch, against its results there: detections one to one, and mean average
// precision; and the precision of the detector that ships, which this program trained.
// Images are decoded by stb_image on both sides. A dozen images are matched one by one; all of them are evaluated.
#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "../cli/run_tool.h"
#include "golden.h"
#include "kernels.h"
#include "model_io/detections_json.h"

namespace golden = frcnn::golden;
namespace tool = frcnn::tool;

namespace {

const std::string shipped = std::string(FRCNN_SOURCE_DIR) + "/weights/bccd_zf.safetensors";

// What `frcnn eval --json` writes of a model or of detections, on the test set.
nlohmann::json evaluate(std::vector<std::string> command, const std::filesystem::path& folder) {
  const tool::TempDir work;
  command.insert(command.begin(), "eval");
  command.insert(command.end(), {"--data", "voc:" + (folder / "BCCD").string(), "--set", "test", "--json", work / "scores.json"});
  const auto result = tool::run(command);
  INFO(result.err);
  REQUIRE(result.code == 0);
  return nlohmann::json::parse(tool::read_file(work / "scores.json"));
}

// The reference's weights as a model of ours.
std::string converted(const std::filesystem::path& folder, const tool::TempDir& work) {
  const std::string model = work / "reference.safetensors";
  std::string classes;
  const auto stored = nlohmann::json::parse(tool::read_file((folder / "bccd_zf.json").string()));
  for (const auto& name : stored["classes"]) classes += (classes.empty() ? "" : ",") + name.get<std::string>();
  const auto result = tool::run({"convert", (folder / "bccd_zf.caffemodel").string(), model, "--prototxt",
                                 (folder / "bccd_zf.prototxt").string(), "--set", "classes=" + classes, "--set",
                                 "max_detections=100", "--set", "score_threshold=0.05"});
  INFO(result.err);
  REQUIRE(result.code == 0);
  return model;
}

double iou(const std::array<float, 4>& a, const std::array<double, 4>& b) {
  const double width = std::min<double>(a[2], b[2]) - std::max<double>(a[0], b[0]) + 1;
  const double height = std::min<double>(a[3], b[3]) - std::max<double>(a[1], b[1]) + 1;
  if (width <= 0 || height <= 0) return 0;
  const double inter = width * height;
  return inter / ((a[2] - a[0] + 1.0) * (a[3] - a[1] + 1.0) + (b[2] - b[0] + 1) * (b[3] - b[1] + 1) - inter);
}

// The folder shared/bccd; empty, after a warning, where there is no shared folder at all.
std::filesystem::path bccd_folder() {
  const auto shared = golden::shared_directory();
  if (shared.empty()) return {};
  if (!std::filesystem::exists(shared / "bccd" / "reference_detections_stb.json")) {
    if (std::getenv("FRCNN_SHARED")) FAIL("missing " << (shared / "bccd").string());
    WARN("SKIPPED: no blood-cell data in " << shared.string());
    return {};
  }
  return shared / "bccd";
}

nlohmann::json parse_file(const std::filesystem::path& path) { return nlohmann::json::parse(tool::read_file(path.string())); }

struct Matched { std::size_t found = 0, of = 0; };

// Reference detections with score >= 0.3 that have a partner of ours: same class, IoU >= 0.95, score within 0.02.
Matched match(const nlohmann::json& reference, const frcnn::ImageDetections& ours) {
  Matched matched;
  std::vector<bool> used(ours.detections.size());
  for (const auto& entry : reference["detections"]) {             // in descending score
    const double score = entry["score"];
    if (score < 0.3) continue;
    ++matched.of;
    const auto box = entry["box"].get<std::array<double, 4>>();
    double best = 0;
    std::size_t partner = 0;
    for (std::size_t i = 0; i < used.size(); ++i) {
      const auto& own = ours.detections[i];
      if (used[i] || own.label != entry["class"] || std::abs(own.score - score) > 0.02) continue;
      if (const double overlap = iou(own.box, box); overlap > best) best = overlap, partner = i;
    }
    if (best < 0.95) continue;
    used[partner] = true;
    ++matched.found;
  }
  return matched;
}

void check_matches(const std::vector<nlohmann::json>& reference, const std::string& file) {
  const auto ours = frcnn::read_detections(file);
  REQUIRE(ours.images.size() == reference.size());
  Matched all;
  for (std::size_t i = 0; i < reference.size(); ++i) {
    INFO(ours.images[i].file);
    REQUIRE(std::filesystem::path(ours.images[i].file).stem() == reference[i]["image"].get<std::string>());
    const Matched one = match(reference[i], ours.images[i]);
    all.found += one.found;
    all.of += one.of;
  }
  std::cout << "golden bccd: " << all.found << " of " << all.of << " reference detections matched in " << reference.size() << " images\n";
  CHECK(all.of > 0);
  CHECK(static_cast<double>(all.found) >= 0.99 * static_cast<double>(all.of));
}

}  // namespace

TEST_CASE("golden: bccd detections of a dozen images") {
  const auto folder = bccd_folder();
  if (folder.empty()) return;
  const auto images = parse_file(folder / "reference_detections_stb.json")["images"];
  const tool::TempDir work;
  std::vector<nlohmann::json> reference;
  std::vector<std::string> command{"detect", converted(folder, work)};
  const std::size_t step = std::max<std::size_t>(1, images.size() / 12);
  for (std::size_t i = 0; i < images.size() && reference.size() < 12; i += step) {
    reference.push_back(images[i]);
    command.push_back((folder / images[i]["file"].get<std::string>()).string());
  }
  command.insert(command.end(), {"--score", "0.05", "--json", work / "ours.json"});
  const auto result = tool::run(command);
  INFO(result.err);
  REQUIRE(result.code == 0);
  check_matches(reference, work / "ours.json");
}

TEST_CASE("golden: bccd evaluation of the whole test set") {
  const auto folder = bccd_folder();
  if (folder.empty()) return;
  const auto want = parse_file(folder / "reference_map.json")["stb_image_decode"];
  const auto images = parse_file(folder / "reference_detections_stb.json")["images"];
  const tool::TempDir work;
  const std::string model = converted(folder, work);
  const auto voc07 = evaluate({model, "--detections", work / "ours.json"}, folder);
  const auto area = evaluate({"--from-detections", work / "ours.json", "--metric", "voc"}, folder);
  const double map07 = voc07["map"], map_area = area["map"];
  std::cout << "golden bccd: mAP " << map07 << " by 11 points (reference " << want["mAP_11point"] << "), " << map_area
            << " by area (reference " << want["mAP_area"] << "), proposal recall " << voc07["proposal_recall"] << "\n";
  CHECK(std::abs(map07 - want["mAP_11point"].get<double>()) <= 0.002);
  CHECK(std::abs(map_area - want["mAP_area"].get<double>()) <= 0.002);
  CHECK(voc07["images"] == images.size());
  for (const auto& [name, one] : want["per_class"].items()) CHECK(voc07["per_class"][name]["npos"] == one["npos"]);
  check_matches(images.get<std::vector<nlohmann::json>>(), work / "ours.json");

  if (!frcnn::cpu::multiplies_bf16()) {
    WARN("SKIPPED: this processor multiplies no bf16");
    return;
  }
  const auto narrow = evaluate({model, "--precision", "bf16", "--device", "cpu"}, folder);
  std::cout << "golden bccd: mAP " << narrow["map"] << " in bf16, " << map07 << " in fp32\n";
  CHECK(std::abs(narrow["map"].get<double>() - map07) <= 0.01);
}

TEST_CASE("golden: the detector that ships is no worse than the one trained in PyTorch") {
  const auto folder = bccd_folder();
  if (folder.empty()) return;
  const double reference = parse_file(folder / "reference_map.json")["stb_image_decode"]["mAP_11point"];
  const double map = evaluate({shipped}, folder)["map"];
  std::cout << "golden bccd: mAP " << map << " of the shipped detector, " << reference << " of the one trained in PyTorch\n";
  CHECK(map >= reference);
}
