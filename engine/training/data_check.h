// What is wrong with a VOC data set, and repairing what can be repaired without guessing.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "detector/config.h"

namespace frcnn {

enum class Defect : std::uint8_t {
  unfinished_repair,  // one that was stopped in the middle                             (finished)
  no_data,            // no annotation at all, or none with an object
  bad_set,            // an image set that cannot be read or is empty; or there is none
  listed_twice,       // an image in one image set
  malformed,          // an annotation that cannot be read
  no_annotation,      // an image set names an image that has none
  no_image,
  broken_image,      // cannot be decoded
  wrong_size,        // the annotation states another size than the image has           (corrected)
  counts_from_zero,  // boxes of all checked files count from 0, VOC's count from 1     (moved, when asked)
  inverted,          // a corner beyond its opposite                                    (swapped)
  zero_size,         // one pixel or less in some direction                             (removed)
  out_of_frame,      // beyond the image's border            (cut off; removed where nothing stays)
  duplicate,         // the same box of the same class twice                            (removed)
  contradiction,     // one box with two classes
  unknown_class,     // not in the given list
  same_pixels,       // two images with equal content
  shared_image,      // in two image sets of which neither holds the other
};
const char* name_of(Defect defect);  // "zero-size"

enum class Remedy : std::uint8_t { none, fix, move_origin };  // nothing but a person; DataFix's two parts

struct DataFinding {
  Defect defect;
  std::string file;
  int line = 0;  // 0: of the whole file
  std::string what;
  Remedy remedy = Remedy::none;
  std::string message() const;  // "FILE:LINE: what"
};

struct Quantiles {  // smallest, 5, 25, 50, 75, 95 percent, largest
  static constexpr std::array<double, 7> points{0, 0.05, 0.25, 0.5, 0.75, 0.95, 1};
  std::array<double, 7> value{};
};

struct DataReport {
  std::string directory;
  std::vector<std::string> annotations;  // the files that were checked and can be read
  std::vector<DataFinding> findings;     // in the order of the files
  std::int64_t images = 0, objects = 0, difficult = 0, without_objects = 0;
  // Worth knowing, and no fault: spellings of one class, classes with a single object, sets inside others.
  std::vector<std::string> notes;
  // Objects of each class, under its name in the list or, without one, in the spelling that training takes.
  std::map<std::string, std::int64_t> classes;
  std::map<std::string, std::int64_t> sets;     // images of each
  // Boxes with a side at 0, at the last pixel counted from 0, and at the image's width or height.
  std::int64_t touching_zero = 0, touching_last = 0, touching_size = 0;
  // Boxes as the network sees them, in its pixels.
  Quantiles width, height, root_area, aspect;  // aspect: height / width
  // The IoU of each box with the anchor shape that fits it best, laid centre on centre: what no position can
  // exceed.
  Quantiles anchor_iou;
  double reaches_positive = 0, below_negative = 0;  // fractions of boxes with that IoU >= 0.7, < 0.3
};

struct DataCheckOptions {
  std::string set;  // only its images and its list, sets joined with '+'; empty: every annotation and list
  std::vector<std::string> classes;  // allowed, background first; empty: all
  ModelConfig model;                 // scale rule and anchors to compare with
  std::function<void(std::size_t done, std::size_t total)> progress;
};

// Reads every annotation and decodes every image. Throws Error(io) where there is no data set.
//
// Boxes are taken to count from 1, unless there is strong evidence that they count from 0: some sides at 0
// and some at the last pixel counted from 0 (`origin_evidence` boxes each, at least), none at an image's
// width or height.
DataReport check_data(const std::string& directory, const DataCheckOptions& options);
constexpr std::int64_t origin_evidence = 5;

struct DataRepair {
  std::string file, original;        // what was mended, and where its first state lies
  std::vector<std::string> changes;  // "LINE: what was done"
};

struct DataFix {
  bool move_origin = false;                                // findings with Remedy::move_origin as well
  std::function<void(const std::string& file)> replacing;  // before each; what it throws stops the repair
};

// Repairs every annotation that has a finding with a remedy; layout and everything else in the file stay. The
// first state is kept as NAME.xml.orig (an older one there stays). All new files are written beside the old
// ones before the first replaces its own, so that a repair which is stopped has changed nothing, or is one
// that finish_repair() completes. Throws Error(io), and Error(invalid_argument) while there is one to be
// finished.
std::vector<DataRepair> repair_data(const DataReport& report, const DataFix& fix = {});

// Completes a repair that was stopped after all its files were written, and removes what one has left that
// was stopped before. The files that were replaced. Throws Error(io).
std::vector<std::string> finish_repair(const std::string& directory, const DataFix& fix = {});
bool repair_is_unfinished(const std::string& directory);

// How coordinates are counted, and whether that is to change.
enum class BoxOrigin : std::uint8_t { one, zero, zero_to_one };

// The repaired text of one annotation, or the same text where nothing is to be done. The image's true size,
// 0x0 where it is not known.
std::string repaired_annotation(const std::string& xml, int width, int height, BoxOrigin origin,
                                std::vector<std::string>& changes);

}  // namespace frcnn
