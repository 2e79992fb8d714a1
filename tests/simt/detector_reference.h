// What a detector on the CPU makes of a picture, to be kept in a folder and compared with on another machine.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "detector/detector.h"
#include "model_io/image_file.h"

namespace frcnn::simt_test {

struct DetectorCase {
  std::string name;
  std::shared_ptr<const Model> model;
  Image image;
  ImageView view() const { return {image.bgr.data(), image.width, image.height}; }
};

struct DetectorReference {
  // In fp32: detections, proposals, and the tensors that are compared, in network order. Without stages only
  // those that tell equal detections apart.
  DetectResult all;
  // With all.proposals given instead of found: the tensors behind them.
  DetectResult head;
  // By precision and tensor: the error of a plain implementation, root mean square relative to fp32. What
  // comes before the proposals, and with the proposals given what comes behind them.
  std::map<std::string, std::map<std::string, double>> plain_error;
  bool stages = false;
};

// Writes model.safetensors and reference.safetensors into the folder, which it makes.
void write_reference(const std::string& folder, const DetectorCase& test_case,
                     const DetectorReference& reference);
// Throws Error(bad_file) or Error(io).
struct StoredReference {
  DetectorCase test_case;
  DetectorReference reference;
};
StoredReference read_reference(const std::string& folder);

}  // namespace frcnn::simt_test
