// The detectors of the reference folder on the CUDA device, in every precision.
#include <cstdlib>

#include "tests/gpu_suite/filled_device.h"
#include "tests/gpu_suite/suite.h"
#include "tests/simt/detector_checks.h"

using namespace frcnn;
using namespace frcnn::simt_test;

namespace {

void report(const DetectorCase& test_case, Precision precision, const Compared& compared) {
  WARN(test_case.name << " " << name_of(precision) << ": " << compared.detections << " detections, "
                      << compared.elements << " elements compared, largest error " << compared.worst
                      << " of what is allowed");
}

}  // namespace

TEST_CASE("detectors find what the CPU finds, in fp32 and 3xTF32", "[detector]") {
  for (const std::string& folder : detector_folders()) {
    const StoredReference stored = read_reference(folder);
    for (const Precision precision : {Precision::fp32, Precision::tf32x3})
      report(stored.test_case, precision, check_exact(stored.test_case, stored.reference, precision));
  }
}

TEST_CASE("detectors lose at most twice what a lower precision must", "[detector]") {
  std::size_t lossy = 0;
  for (const std::string& folder : detector_folders()) {
    const StoredReference stored = read_reference(folder);
    if (!stored.reference.stages) continue;
    for (const Precision precision : {Precision::tf32, Precision::fp16, Precision::bf16})
      report(stored.test_case, precision, check_lossy(stored.test_case, stored.reference, precision));
    ++lossy;
  }
  CHECK(lossy > 0);
}

namespace {

// The device that a detector would make for itself; with FRCNN_FILLED_ARENA set, its memory written once.
std::shared_ptr<Device> device_for(Precision precision) {
  std::shared_ptr<Device> device = make_cuda_device(0, precision);
  if (std::getenv("FRCNN_FILLED_ARENA")) return std::make_shared<FilledDevice>(std::move(device));
  return device;
}

void check_repeats(const StoredReference& stored) {
  for (const Precision precision :
       {Precision::fp32, Precision::tf32x3, Precision::tf32, Precision::fp16, Precision::bf16}) {
    INFO(stored.test_case.name << " " << name_of(precision));
    const DetectorOptions options = options_for(stored.test_case, "cuda:0", precision);
    Detector cuda(stored.test_case.model, device_for(precision), options);
    Detector other(stored.test_case.model, device_for(precision), options);
    DetectRequest everything;
    everything.want_proposals = everything.want_tensors = true;
    for (const DetectRequest& request :
         {DetectRequest{}, everything}) {  // as it runs, and with every value kept
      const DetectResult once = cuda.detect(stored.test_case.view(), request);
      CHECK(once.proposal_count > 0);
      CHECK(once.tensors.empty() != request.want_tensors);
      CHECK(same_bits_throughout(cuda.detect(stored.test_case.view(), request), once));
      CHECK(same_bits_throughout(other.detect(stored.test_case.view(), request), once));
    }
    // The first detection ran kernel by kernel, the second was the replay of a graph.
    CHECK(cuda.session().stats().runs.recordings == 1);
    CHECK(cuda.session().stats().runs.replays == 1);
    CHECK(other.session().stats().runs.replays == 0);
  }
}

}  // namespace

// For compute-sanitizer too: everything that a detection launches.
TEST_CASE("a detector gives the same bits again, in every precision", "[detector][sanitize]") {
  check_repeats(read_reference(detector_folders().front()));
}

TEST_CASE("all detectors give the same bits again, in every precision", "[detector]") {
  for (const std::string& folder : detector_folders()) check_repeats(read_reference(folder));
}
