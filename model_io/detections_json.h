// The JSON forms in which detections and proposals leave and enter the program.
//
// Detections: {"model","device","precision","images":[{"file","width","height","scale","proposals":COUNT,
//   "detections":[{"label","class_id","score","box":[x1,y1,x2,y2]}], "ms":{...} only when timed}]}
// Proposals:  {"images":[{"file","boxes":[[x1,y1,x2,y2],...],"scores":[...]}]}
// Boxes are inclusive corners in pixels of the original image, counted from 0. Numbers are written as the shortest text
// that reads back as the same float, keys in the order above, so that equal results are equal bytes.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "detector/detector.h"

namespace frcnn {

struct LabelledDetection {
  std::string label;
  int class_id = 0;                            // 0: not given (hand-made files may name labels only)
  float score = 0;
  std::array<float, 4> box{};                  // x1,y1,x2,y2
};

// Milliseconds per stage; a stage that the device cannot time is absent and written as null.
struct StageTimes {
  std::optional<double> decode, preprocess, backbone, rpn, proposals, head, total;
};

struct ImageDetections {
  std::string file;
  int width = 0, height = 0;
  double scale = 0;                            // of the network's input to the original
  std::int64_t proposals = 0;                  // how many the head saw
  std::vector<LabelledDetection> detections;   // score descending
  std::optional<StageTimes> ms;
};

struct DetectionsFile {
  std::string model, device, precision;
  std::vector<ImageDetections> images;
};

struct ImageProposals {
  std::string file;
  std::vector<Proposal> proposals;
};

// What `detect` found, with labels from `classes` (background first), sorted by score descending; equal scores stay
// in the detector's order. Only detections with score >= min_score.
ImageDetections labelled(const std::string& file, const DetectResult& result, std::span<const std::string> classes,
                         float min_score);

// Ends with a newline. File names that are not UTF-8 have the offending bytes replaced.
std::string detections_to_json(const DetectionsFile& detections);
std::string proposals_to_json(std::span<const ImageProposals> images);

// `name` stands for the file in messages. Required: images[].file, detections[].label, score, box (or boxes and scores
// of equal count); what else the forms hold may be missing. Unknown keys are passed over. Throws Error(bad_file) that
// names the place ("dets.json: images[3].detections[0].box: expected 4 numbers, found 3").
DetectionsFile detections_from_json(std::string_view text, const std::string& name);
std::vector<ImageProposals> proposals_from_json(std::string_view text, const std::string& name);

// The same from a file. Throws Error(io) too.
DetectionsFile read_detections(const std::string& path);
std::vector<ImageProposals> read_proposals(const std::string& path);

}  // namespace frcnn
