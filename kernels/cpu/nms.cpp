// Greedy suppression of sorted boxes. Each candidate meets the survivors so far, never the other way round,
// so the work is at most candidates x max_out overlaps and stops with the last survivor wanted.
#include <algorithm>

#include "carve.h"
#include "kept_boxes.h"
#include "kernels.h"
#include "parallel.h"

namespace frcnn::cpu {
namespace {

struct Roi {
  float image;
  Box box;
};
static_assert(sizeof(Roi) == 5 * sizeof(float));

std::int32_t suppress(const Nms& op, const Box* boxes, const float* scores, std::int64_t count, float image,
                      std::int64_t capacity, KeptBoxes& kept, Roi* rois, float* roi_scores) {
  kept.clear();
  for (std::int64_t i = 0; i < count && kept.size() < capacity; ++i) {
    if (kept.suppress(boxes[i], op.threshold, op.suppress)) continue;
    rois[kept.size()] = {image, boxes[i]};
    roi_scores[kept.size()] = scores[i];
    kept.add(boxes[i]);
  }
  for (std::int64_t i = kept.size(); i < capacity; ++i) {
    rois[i] = {image, {0, 0, 0, 0}};
    roi_scores[i] = 0;
  }
  return static_cast<std::int32_t>(kept.size());
}

}  // namespace

Prepared prepare(const Nms& op, const KernelSpec& spec, const Settings& settings) {
  const std::int64_t batch = spec.in[1].shape[0], entries = spec.in[1].shape[1];
  const std::int64_t capacity = batch > 0 ? spec.out[1].shape[0] / batch : 0;
  // Images go to different threads; within one, survivors depend on each other.
  const std::int64_t chunks = std::clamp<std::int64_t>(settings.threads, 1, std::max<std::int64_t>(batch, 1));
  Carver carver;
  for (std::int64_t i = 0; i < chunks; ++i) KeptBoxes(carver, capacity);
  Prepared prepared;
  prepared.implementation = "plain";
  prepared.workspace_bytes = carver.used();
  prepared.run = [op, batch, entries, capacity, chunks](const KernelArgs& args) {
    parallel_for(batch, static_cast<int>(chunks), [&](std::int64_t begin, std::int64_t end, int chunk) {
      Carver memory(args.workspace);
      for (int i = 0; i < chunk; ++i) KeptBoxes(memory, capacity);
      KeptBoxes kept(memory, capacity);
      for (std::int64_t n = begin; n < end; ++n) {
        const std::int64_t count =
            std::clamp<std::int64_t>(args.in[2].as<const std::int32_t>()[n], 0, entries);
        args.out[2].as<std::int32_t>()[n] =
            suppress(op, args.in[0].as<const Box>() + n * entries, args.in[1].as<const float>() + n * entries,
                     count, static_cast<float>(n), capacity, kept, args.out[0].as<Roi>() + n * capacity,
                     args.out[1].as<float>() + n * capacity);
      }
    });
  };
  return prepared;
}

}  // namespace frcnn::cpu
