// What jwyang/faster-rcnn.pytorch does otherwise than the release, for checkpoints of it.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "detector/config.h"
#include "model_io/convert/implied.h"
#include "model_io/convert/source.h"

namespace frcnn {

struct Findings {
  std::vector<std::string> implied;  // sentences, "key=value: why" where a convention was set
  std::set<std::string> missing;     // conventions that only the user can give
  std::string why;                   // they are missing, where that is not plain
};

using CheckpointFacts = std::map<std::string, std::string>;  // Source::facts

// Multiplies bbox_pred's rows by the standard deviations that the program trains with and applies again when
// it detects.
Findings unnormalise_boxes(Source& source);

// Sets anchors (by their number: PASCAL VOC's three scales or COCO's four) and the size below which proposals
// are dropped: the program drops none.
Findings jwyang_proposals(ModelConfig& config, const TensorShapes& shapes);

// The checkpoint's pooling_mode: "pool" is ours; "align" is another operator on each branch of the program
// and "crop" none of ours, so that roi_op must be given. With a prototxt, that decides.
Findings jwyang_pooling(const CheckpointFacts& facts, bool prototxt);

// Throws Error(bad_model) where the checkpoint's class_agnostic is not what bbox_pred looks like.
void check_class_agnostic(const CheckpointFacts& facts, const TensorShapes& shapes, const std::string& file);

}  // namespace frcnn
