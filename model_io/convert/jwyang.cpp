#include "model_io/convert/jwyang.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>

#include "frcnn/error.h"
#include "model_io/convert/fold.h"

namespace frcnn {
namespace {

constexpr std::array<double, 4> box_stds{0.1, 0.1, 0.2, 0.2};

constexpr const char* program = "jwyang/faster-rcnn.pytorch";

std::int64_t outputs_of(const TensorShapes& shapes, const char* weight) {
  const auto found = shapes.find(weight);
  return found == shapes.end() || found->second.empty() ? 0 : found->second[0];
}

}  // namespace

Findings unnormalise_boxes(Source& source) {
  Findings found;
  for (SourceTensor& tensor : source.tensors) {
    if (tensor.name != "bbox_pred.weight" && tensor.name != "bbox_pred.bias") continue;
    scale_rows(tensor, box_stds);
    if (found.implied.empty())
      found.implied.push_back(fmt::format("bbox_pred times {}: {} keeps it for normalised boxes",
                                          fmt::join(box_stds, ","), program));
  }
  return found;
}

Findings jwyang_proposals(ModelConfig& config, const TensorShapes& shapes) {
  Findings found;
  const std::int64_t outputs = outputs_of(shapes, "rpn_cls_score.weight");
  if (outputs == 18 || outputs == 24) {
    config.anchor_ratios = {0.5, 1, 2};
    config.anchor_scales = {8, 16, 32};
    if (outputs == 24) config.anchor_scales = {4, 8, 16, 32};
    found.implied.push_back(fmt::format("anchor_scales={}: {}'s for {} anchors",
                                        fmt::join(config.anchor_scales, ","), program, outputs / 2));
    found.implied.push_back(
        fmt::format("anchor_ratios={}: {}'s", fmt::join(config.anchor_ratios, ","), program));
  } else {
    found.missing = {"anchor_scales", "anchor_ratios"};
  }
  config.rpn_min_size = 0;
  found.implied.push_back(fmt::format("rpn_min_size=0: {} keeps proposals of any size", program));
  return found;
}

Findings jwyang_pooling(const CheckpointFacts& facts, bool prototxt) {
  Findings found;
  const auto fact = facts.find("pooling_mode");
  const std::string mode = fact == facts.end() ? "" : fact->second;
  if (prototxt) {
    if (!mode.empty() && mode != "pool")
      found.implied.push_back("roi_op=pool: of the prototxt; the checkpoint says pooling_mode " + mode);
  } else if (mode == "pool") {
    found.implied.push_back("roi_op=pool: the checkpoint's pooling_mode");
  } else {
    found.missing = {"roi_op"};
    if (mode == "align")
      found.why = "pooling_mode align means another operator on each branch of that program";
    else if (!mode.empty())
      found.why = "pooling_mode " + mode + " is no operator of this program";
  }
  return found;
}

void check_class_agnostic(const CheckpointFacts& facts, const TensorShapes& shapes, const std::string& file) {
  const auto fact = facts.find("class_agnostic");
  const std::int64_t boxes = outputs_of(shapes, "bbox_pred.weight");
  if (fact == facts.end() || boxes == 0 || (fact->second != "true" && fact->second != "false")) return;
  if ((fact->second == "true") == (boxes == 4)) return;
  throw Error(ErrorCode::bad_model, fmt::format("{}: class_agnostic is {}, but bbox_pred has {} outputs",
                                                file, fact->second, boxes));
}

}  // namespace frcnn
