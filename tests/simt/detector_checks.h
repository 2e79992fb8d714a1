// Detectors on the CUDA device, a GPU's or the emulated one, against a reference that the CPU made.
#pragma once

#include <algorithm>
#include <string>

#include "catch.h"
#include "tests/simt/detector_compare.h"
#include "tests/simt/detector_reference.h"

namespace frcnn::simt_test {

inline DetectorOptions options_for(const DetectorCase& test_case, const std::string& device,
                                   Precision precision, const GpuOptions& gpu = {}) {
  DetectorOptions options;
  options.gpu = gpu;
  options.device = device;
  options.precision = precision;
  options.threads = 1;
  options.max_image_pixels = std::int64_t{test_case.image.width} * test_case.image.height;
  return options;
}

struct Compared {
  std::size_t detections = 0, elements = 0;
  double worst = 0;  // error over what is allowed
};

// fp32 and 3xTF32: as exact as the CPU. Every stage within the tolerance of the reference data, the
// detections equal.
inline Compared check_exact(const DetectorCase& test_case, const DetectorReference& reference,
                            Precision precision, const GpuOptions& gpu = {}) {
  INFO(test_case.name << " " << name_of(precision));
  Compared compared;
  Detector cuda(test_case.model, options_for(test_case, "cuda:0", precision, gpu));
  const DetectResult got = cuda.detect(test_case.view());
  compared.detections = compare_detections(got, reference.all);
  REQUIRE(compared.detections > 0);
  if (!reference.stages) return compared;
  DetectRequest everything;
  everything.want_tensors = true;
  const DetectResult parts = cuda.detect(test_case.view(), everything);
  CHECK(same_bits(parts, got));  // fused or not
  for (const NamedTensor& exact : reference.all.tensors) {
    if (exact.name == "cls_prob" || exact.name == "pred_boxes")
      continue;  // behind the proposals: only up to ties
    const NamedTensor* const ours = find(parts, exact.name);
    REQUIRE(ours);
    const double error = largest_error(*ours, exact);
    INFO(exact.name << ": " << error);
    CHECK(error <= top_tolerance);
    compared.worst = std::max(compared.worst, error / top_tolerance);
    compared.elements += exact.data.size();
  }
  REQUIRE(compared.elements > 1000);
  return compared;
}

// A lower precision loses, stage by stage and as a root mean square relative to fp32, at most twice what a
// plain implementation loses. Behind the proposals a lost tie changes what is compared, so the head is given
// the proposals that the CPU finds in fp32.
inline Compared check_lossy(const DetectorCase& test_case, const DetectorReference& reference,
                            Precision precision, const GpuOptions& gpu = {}) {
  INFO(test_case.name << " " << name_of(precision));
  Compared compared;
  Detector cuda(test_case.model, options_for(test_case, "cuda:0", precision, gpu));
  const auto& plain = reference.plain_error.at(std::string(name_of(precision)));
  for (const bool head : {false, true}) {
    DetectRequest request;
    request.want_tensors = true;
    if (head) request.proposals = &reference.all.proposals;
    const DetectResult got = cuda.detect(test_case.view(), request);
    for (const NamedTensor& exact : (head ? reference.head : reference.all).tensors) {
      const auto plainly = plain.find((head ? "head." : "all.") + exact.name);
      if (plainly == plain.end()) continue;
      const NamedTensor* const ours = find(got, exact.name);
      REQUIRE(ours);
      const double error = relative_error(*ours, exact), allowed = 2 * plainly->second;
      INFO(exact.name << ": " << error << ", of a plain implementation " << plainly->second);
      CHECK(error <= allowed + 1e-6);  // stages that no rounding reaches: fp32's own
      if (allowed > 0) compared.worst = std::max(compared.worst, error / allowed);
      compared.elements += exact.data.size();
    }
  }
  REQUIRE(compared.elements > 1000);
  const DetectResult once = cuda.detect(test_case.view());
  CHECK(same_bits(cuda.detect(test_case.view()), once));
  compared.detections = once.detections.size();
  return compared;
}

}  // namespace frcnn::simt_test
