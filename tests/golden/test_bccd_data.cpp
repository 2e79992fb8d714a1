// The blood-cell set has two defects, which its README names; what is learned from it is what the reference
// trainer learned from.
#include <array>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include "golden.h"
#include "training/architecture.h"
#include "training/data_check.h"
#include "training/loader.h"
#include "training/presets.h"

namespace golden = frcnn::golden;

namespace {

// The data set's folder; empty, after a warning, where there is no shared folder at all.
std::string bccd() {
  const auto shared = golden::shared_directory();
  if (shared.empty()) return {};
  const auto folder = shared / "bccd" / "BCCD";
  if (std::filesystem::is_directory(folder / "Annotations")) return folder.string();
  if (std::getenv("FRCNN_SHARED")) FAIL("missing " << folder.string());
  WARN("SKIPPED: no blood-cell data in " << shared.string());
  return {};
}

}  // namespace

TEST_CASE("golden: data check finds the blood-cell set's two defects and nothing else") {
  const std::string folder = bccd();
  if (folder.empty()) return;
  frcnn::DataCheckOptions options;
  options.classes = {"__background__", "RBC", "WBC", "Platelets"};
  options.model = frcnn::new_detector(frcnn::preset("bccd").model, options.classes, nullptr).config;
  const frcnn::DataReport report = frcnn::check_data(folder, options);
  CHECK(report.images == 364);
  CHECK(report.objects == 4888);
  CHECK(report.difficult == 0);
  CHECK(report.sets.at("train") == 205);
  CHECK(report.sets.at("val") == 87);
  CHECK(report.sets.at("trainval") == 292);
  CHECK(report.sets.at("test") == 72);
  CHECK(report.touching_size > 0);  // boxes count from 1
  CHECK(report.touching_zero == 0);
  std::vector<std::string> found;
  for (const frcnn::DataFinding& one : report.findings) {
    CHECK(one.defect == frcnn::Defect::zero_size);
    found.push_back(one.message());
  }
  const std::string annotations = folder + "/Annotations/BloodImage_";
  CHECK(found ==
        std::vector<std::string>{annotations + "00338.xml:158: box 504,337,504,337 of RBC has no extent",
                                 annotations + "00343.xml:50: box 181,329,181,329 of RBC has no extent"});
  std::cout << "golden: data check compared " << report.objects << " objects\n";
}

TEST_CASE("golden: the preset learns from the reference trainer's images, objects and input offset") {
  const std::string folder = bccd();
  if (folder.empty()) return;
  const frcnn::RunConfig config = frcnn::preset("bccd");
  const frcnn::TrainDataset data =
      frcnn::make_train_dataset(frcnn::read_voc_sets(folder, "trainval"), {}, config.data);
  CHECK(data.classes == std::vector<std::string>{"__background__", "Platelets", "RBC", "WBC"});
  CHECK(data.entries.size() == 292);
  REQUIRE(data.warnings.size() == 2);  // the two boxes without extent, as the check calls them
  for (const std::string& warning : data.warnings)
    CHECK(warning.find("of RBC has no extent and is left out") != std::string::npos);
  std::int64_t written = 0;
  for (const auto& image : frcnn::read_voc_sets(folder, "trainval").images)
    written += static_cast<std::int64_t>(image.objects.size());
  CHECK(data.objects == written - 2);
  const auto model = frcnn::new_detector(config.model, data.classes, nullptr).config;
  // The reference trainer's mean before it is rounded, of images decoded by libjpeg-turbo: the decoder here
  // differs by 0.1 level in the mean, so that the rounded numbers, (79, 62, 65) there, may differ by one.
  const std::array<double, 3> reference{79.4129, 61.5048, 65.1834},
      offset = frcnn::measure_input_offset(data, model.pixel_mean, frcnn::BrokenImages::fatal);
  for (std::size_t c = 0; c < 3; ++c) {
    CHECK(offset[c] == std::nearbyint(offset[c]));
    CHECK(std::abs(offset[c] - reference[c]) <= 0.5 + 0.1);
  }
  std::cout << "golden: training data compared " << data.entries.size() << " images\n";
}
