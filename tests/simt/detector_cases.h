// Detectors to try on a device: one of random weights, and the tiny networks of the reference data.
#pragma once

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "cli/run_tool.h"
#include "golden/golden.h"
#include "model_io/convert/convert.h"
#include "model_io/model_file.h"
#include "tests/simt/detector_fixture.h"
#include "tests/simt/detector_reference.h"

namespace frcnn::simt_test {

inline DetectorCase random_case() {
  const Picture picture(70, 52, 3);
  return {"tiny random", tiny_model(), {70, 52, picture.bytes}};
}

// tiny_vgg16 and tiny_zf at a network size of their own, or none without the reference data.
inline std::vector<DetectorCase> golden_cases(int short_side, const tool::TempDir& dir) {
  namespace fs = std::filesystem;
  std::vector<DetectorCase> cases;
  const fs::path shared = golden::shared_directory();
  if (shared.empty()) return cases;
  for (const auto& entry : fs::directory_iterator(shared / "golden")) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_directory() || name.rfind("tiny_", 0) != 0) continue;
    ConvertOptions convert_options;
    convert_options.sources = {(entry.path() / "model.safetensors").string()};
    convert_options.prototxt = (entry.path() / "test.prototxt").string();
    convert_options.destination = dir / (name + ".frcnn");
    convert(convert_options);
    const auto model = load_model(convert_options.destination);
    ModelConfig config = model->config;
    config.short_side = short_side;
    config.long_side = 1000;
    config.score_threshold = std::min(config.score_threshold, 0.05);
    cases.push_back({name, with_config(*model, config), read_image((entry.path() / "image.png").string())});
  }
  REQUIRE_FALSE(cases.empty());
  return cases;
}

}  // namespace frcnn::simt_test
