// From class scores and class boxes to detections (SPEC section 7, steps 3 and 4): threshold, suppression
// within each class, and the cap per image. Images go to different threads.
#include <algorithm>
#include <functional>
#include <limits>
#include <string>

#include "carve.h"
#include "frcnn/error.h"
#include "kept_boxes.h"
#include "kernels.h"
#include "parallel.h"
#include "score_order.h"

namespace frcnn::cpu {
namespace {

struct Sizes {
  std::int64_t batch, per_image, classes, box_classes, capacity;  // box_classes 1: one box for every class
};

// A survivor of its class's suppression. Survivors are listed in the order of the output.
struct Survivor {
  float score;
  std::int32_t label, roi;
};

struct Detection {
  float label, score;
  Box box;
};
static_assert(sizeof(Detection) == 6 * sizeof(float));

// One thread's part of the workspace.
struct Scratch {
  std::int32_t* nonfinite;
  std::uint64_t* keys;  // candidates of one class
  KeptBoxes kept;
  Survivor* survivors;
  float* scores;  // of the survivors, to be reordered freely

  Scratch(Carver& memory, const Sizes& s)
      : nonfinite(memory.take<std::int32_t>(1)),
        keys(memory.take<std::uint64_t>(s.per_image)),
        kept(memory, s.per_image),
        survivors(memory.take<Survivor>(s.per_image * (s.classes - 1))),
        scores(memory.take<float>(s.per_image * (s.classes - 1))) {}
};

struct Image {
  const float* prob;   // [rois, classes]
  const float* boxes;  // [rois, box_classes, 4]
  std::int64_t rois;   // valid ones
  float score(const Sizes& s, std::int64_t roi, std::int64_t label) const {
    return prob[roi * s.classes + label];
  }
  Box box(const Sizes& s, std::int64_t roi, std::int64_t label) const {
    const float* b = boxes + (roi * s.box_classes + (s.box_classes == 1 ? 0 : label)) * 4;
    return {b[0], b[1], b[2], b[3]};
  }
};

// Appends the survivors of one class behind the `total` there are; returns the new total.
std::int64_t suppress_class(const SelectDetections& op, const Sizes& s, const Image& image,
                            std::int64_t label, std::int64_t total, Scratch& scratch) {
  std::int64_t candidates = 0;
  for (std::int64_t r = 0; r < image.rois; ++r) {
    const float score = image.score(s, r, label);
    if (score > op.score_threshold)
      scratch.keys[candidates++] = rank_key(score, static_cast<std::uint32_t>(r));
  }
  std::sort(scratch.keys, scratch.keys + candidates);
  scratch.kept.clear();
  for (std::int64_t i = 0; i < candidates; ++i) {
    const auto roi = static_cast<std::int32_t>(index_of(scratch.keys[i]));
    const Box box = image.box(s, roi, label);
    if (scratch.kept.suppress(box, op.nms_threshold, op.suppress)) continue;
    scratch.kept.add(box);
    scratch.survivors[total++] = {image.score(s, roi, label), static_cast<std::int32_t>(label), roi};
  }
  return total;
}

// What the cap lets through: scores above `threshold`, and the first `equal` survivors that equal it.
struct Cap {
  float threshold;
  std::int64_t equal;
};

// `limit` < total. With ties kept, every survivor that equals the last one counted stays.
Cap cap_at(const SelectDetections& op, std::int64_t limit, std::int64_t total, Scratch& scratch) {
  float* scores = scratch.scores;
  for (std::int64_t i = 0; i < total; ++i) scores[i] = scratch.survivors[i].score;
  std::nth_element(scores, scores + limit - 1, scores + total, std::greater<>());
  const float threshold = scores[limit - 1];
  const std::int64_t above = std::count_if(scores, scores + total, [&](float v) { return v > threshold; });
  return {threshold, op.keep_ties ? total : limit - above};
}

std::int32_t detect(const SelectDetections& op, const Sizes& s, const Image& image, Scratch& scratch,
                    Detection* detections) {
  std::int64_t total = 0;
  for (std::int64_t label = 1; label < s.classes; ++label) {
    total = suppress_class(op, s, image, label, total, scratch);
  }
  Cap cap{-std::numeric_limits<float>::infinity(), total};
  if (op.max_detections > 0 && op.max_detections < total) cap = cap_at(op, op.max_detections, total, scratch);
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < total; ++i) {
    const Survivor& v = scratch.survivors[i];
    if (v.score < cap.threshold || (v.score == cap.threshold && cap.equal-- <= 0)) continue;
    detections[count++] = {static_cast<float>(v.label), v.score, image.box(s, v.roi, v.label)};
  }
  std::fill(detections + count, detections + s.capacity, Detection{0, 0, {0, 0, 0, 0}});
  return static_cast<std::int32_t>(count);
}

bool has_nonfinite(const float* values, std::int64_t count) {
  bool found = false;
  for (std::int64_t i = 0; i < count; ++i) found |= !is_finite(values[i]);
  return found;
}

}  // namespace

Prepared prepare(const SelectDetections& op, const KernelSpec& spec, const Settings& settings) {
  Sizes s{};
  s.batch = spec.in[2].shape[0];
  s.per_image = s.batch > 0 ? spec.in[0].shape[0] / s.batch : 0;
  s.classes = std::max<std::int64_t>(spec.in[0].shape[1], 1);
  s.box_classes = spec.in[1].shape[1] / 4;
  s.capacity = spec.out[0].shape[1];
  const std::int64_t most = s.per_image * (s.classes - 1);
  const std::int64_t needed =
      op.keep_ties || op.max_detections <= 0 ? most : std::min(most, op.max_detections);
  if (s.capacity < needed) {
    throw Error(ErrorCode::invalid_argument, "select_detections: room for " + std::to_string(s.capacity) +
                                                 " detections per image, " + std::to_string(needed) +
                                                 " are possible");
  }
  const std::int64_t chunks =
      std::clamp<std::int64_t>(settings.threads, 1, std::max<std::int64_t>(s.batch, 1));
  Carver carver;
  for (std::int64_t i = 0; i < chunks; ++i) Scratch(carver, s);
  Prepared prepared;
  prepared.implementation = "plain";
  prepared.workspace_bytes = carver.used();
  prepared.run = [op, s, chunks](const KernelArgs& args) {
    Carver flags(args.workspace);
    for (std::int64_t i = 0; i < chunks; ++i) *Scratch(flags, s).nonfinite = 0;
    parallel_for(s.batch, static_cast<int>(chunks), [&](std::int64_t begin, std::int64_t end, int chunk) {
      Carver memory(args.workspace);
      for (int i = 0; i < chunk; ++i) Scratch(memory, s);
      Scratch scratch(memory, s);
      for (std::int64_t n = begin; n < end; ++n) {
        const Image image{args.in[0].as<const float>() + n * s.per_image * s.classes,
                          args.in[1].as<const float>() + n * s.per_image * s.box_classes * 4,
                          std::clamp<std::int64_t>(args.in[2].as<const std::int32_t>()[n], 0, s.per_image)};
        *scratch.nonfinite |= has_nonfinite(image.prob, image.rois * s.classes) ||
                              has_nonfinite(image.boxes, image.rois * s.box_classes * 4);
        args.out[1].as<std::int32_t>()[n] =
            detect(op, s, image, scratch, args.out[0].as<Detection>() + n * s.capacity);
      }
    });
    std::int32_t nonfinite = 0;
    Carver results(args.workspace);
    for (std::int64_t i = 0; i < chunks; ++i) nonfinite |= *Scratch(results, s).nonfinite;
    *args.out[2].as<std::int32_t>() = nonfinite;
  };
  return prepared;
}

}  // namespace frcnn::cpu
