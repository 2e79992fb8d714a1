// Writes the references of the suite into $FRCNN_SUITE_REFERENCES: the emulator's answers, and the CPU's
// detections by a random detector and, where the reference data is, by the tiny networks.
//
// With $FRCNN_SUITE_SMALL set, only the random one, which the emulator runs in seconds.
#include <cstdlib>
#include <filesystem>

#include "tests/simt/conformance.h"
#include "tests/simt/detector_cases.h"
#include "tests/simt/make_reference.h"

using namespace frcnn;
using namespace frcnn::simt_test;
namespace fs = std::filesystem;

TEST_CASE("references are written") {
  const char* const folder = std::getenv("FRCNN_SUITE_REFERENCES");
  REQUIRE(folder);
  const fs::path detectors = fs::path(folder) / "detectors";
  fs::remove_all(detectors);
  fs::create_directories(detectors);
  write_samples((fs::path(folder) / "conformance.safetensors").string(), take_samples());

  // The first by name, since it is also what compute-sanitizer sees.
  const DetectorCase random = random_case();
  write_reference((detectors / "0_random").string(), random, make_reference(random, true));
  if (std::getenv("FRCNN_SUITE_SMALL")) return;
  // Every stage at the size of the reference data, and the detections at the size that detectors work at.
  for (const int short_side : {224, 600}) {
    const tool::TempDir dir;
    for (const DetectorCase& test_case : golden_cases(short_side, dir)) {
      const DetectorReference reference = make_reference(test_case, short_side == 224);
      CHECK_FALSE(reference.all.detections.empty());
      write_reference((detectors / (test_case.name + "_" + std::to_string(short_side))).string(), test_case,
                      reference);
    }
  }
}
