// Our VOC evaluation against the release's own voc_eval.py.
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "golden.h"
#include "training/voc_dataset.h"
#include "training/voc_eval.h"

namespace golden = frcnn::golden;

namespace {

// `id score x1 y1 x2 y2` per line, boxes counted from 1.
std::vector<frcnn::VocDetection> read_results(const std::filesystem::path& path, const frcnn::VocDataset& dataset) {
  std::ifstream file(path);
  if (!file) FAIL("missing golden file " << path.string());
  std::vector<frcnn::VocDetection> detections;
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream fields(line);
    std::string id;
    frcnn::VocDetection detection;
    if (!(fields >> id >> detection.score)) continue;
    for (double& side : detection.box) fields >> side;
    REQUIRE(fields);
    while (detection.image < dataset.images.size() && dataset.images[detection.image].id != id) ++detection.image;
    REQUIRE(detection.image < dataset.images.size());
    detections.push_back(detection);
  }
  return detections;
}

std::vector<frcnn::VocTruth> truth_of(const frcnn::VocDataset& dataset, const std::string& name) {
  std::vector<frcnn::VocTruth> truth(dataset.images.size());
  for (std::size_t i = 0; i < truth.size(); ++i) {
    for (const auto& object : dataset.images[i].objects) {
      if (object.name != name) continue;
      truth[i].boxes.push_back(object.box);
      truth[i].difficult.push_back(object.difficult);
    }
  }
  return truth;
}

}  // namespace

TEST_CASE("golden: voc_eval") {
  const auto file = golden::open("voc_eval.safetensors");
  if (!file) return;
  const auto folder = golden::path("voc_eval");
  const auto dataset = frcnn::read_voc_dataset(folder.string(), "test");
  golden::Tally tally("voc_eval");
  for (const auto& name : golden::metadata(*file, "classes").get<std::vector<std::string>>()) {
    std::filesystem::path results;
    for (const auto& entry : std::filesystem::directory_iterator(folder / "results")) {
      const std::string stem = entry.path().stem().string(), ending = "_" + name;
      if (stem.size() > ending.size() && stem.compare(stem.size() - ending.size(), ending.size(), ending) == 0) results = entry.path();
    }
    INFO(name);
    REQUIRE_FALSE(results.empty());
    const auto detections = read_results(results, dataset);
    const auto truth = truth_of(dataset, name);
    const auto cases = golden::matching(*file, name + R"(_iou(\d+)\.ap)");
    CHECK_FALSE(cases.empty());
    for (const auto& one : cases) {
      const auto curve = frcnn::voc_curve(truth, detections, std::stoi(one[1]) / 100.0);
      const std::string prefix = name + "_iou" + one[1];
      tally.compare(prefix + ".recall", curve.recall, golden::values<double>(*file, prefix + ".recall"), 1e-6);
      tally.compare(prefix + ".precision", curve.precision, golden::values<double>(*file, prefix + ".precision"), 1e-6);
      const std::vector<double> ap{frcnn::average_precision(curve, frcnn::VocMetric::eleven_point),
                                   frcnn::average_precision(curve, frcnn::VocMetric::area)};
      tally.compare(one[0], ap, golden::values<double>(*file, one[0]), 1e-6);
    }
  }
  tally.finish();
}
