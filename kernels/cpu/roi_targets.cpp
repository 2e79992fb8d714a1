// RoIs for the head and what they should become (SPEC section 10). A few thousand candidates of an image: one
// thread.
#include <algorithm>
#include <cmath>

#include "carve.h"
#include "cpu/draw.h"
#include "kernels.h"
#include "parallel.h"
#include "philox.h"
#include "target_math.h"

namespace frcnn::cpu {
namespace {

struct Roi {
  float image;
  Box box;
};
static_assert(sizeof(Roi) == 5 * sizeof(float));

enum class Part : std::int32_t { none, foreground, background };

struct Candidates {  // of one image: proposals, then ground truth
  const Roi* rois;
  std::int64_t roi_count;
  const GroundTruth* truth;
  std::int64_t truth_count;
  std::int64_t size() const { return roi_count + truth_count; }
  Box at(std::int64_t i) const { return i < roi_count ? rois[i].box : truth[i - roi_count].box; }
};

struct Memory {
  std::int32_t* owner;  // by candidate: the box it overlaps most
  Part* part;
  std::uint64_t* order;
  Memory(Carver& carver, std::int64_t n)
      : owner(carver.take<std::int32_t>(n)),
        part(carver.take<Part>(n)),
        order(carver.take<std::uint64_t>(n)) {}
};

void sort_into_parts(const RoiTargets& op, const Candidates& from, const Memory& memory, int threads) {
  parallel_for(from.size(), threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      double most = 0;
      memory.owner[i] = 0;
      for (std::int64_t g = 0; g < from.truth_count; ++g) {
        const double iou = overlap(from.at(i), from.truth[g].box);
        if (iou > most) {
          most = iou;
          memory.owner[i] = static_cast<std::int32_t>(g);
        }
      }
      const bool background = most < op.background_iou_high && most >= op.background_iou_low;
      memory.part[i] = from.truth_count > 0 && most >= op.foreground_iou ? Part::foreground
                       : background                                      ? Part::background
                                                                         : Part::none;
    }
  });
}

struct Rows {  // of one image's outputs
  Roi* rois;
  std::int32_t* labels;
  float *targets, *inside, *outside;
};

void fill_row(const RoiTargets& op, const Candidates& from, std::int64_t candidate, const Memory& memory,
              const Rows& rows, std::int64_t r) {
  rows.rois[r].box = from.at(candidate);
  rows.labels[r] = 0;
  if (memory.part[candidate] != Part::foreground) return;
  const GroundTruth& truth = from.truth[memory.owner[candidate]];
  const auto label = static_cast<std::int32_t>(truth.class_id);
  rows.labels[r] = label;
  if (label < 0 || label >= op.classes) return;  // no class of this model: the loss says so
  const BoxDelta delta = encode(from.at(candidate), truth.box);
  for (std::size_t k = 0; k < 4; ++k) {
    const std::int64_t at = (r * op.classes + label) * 4 + static_cast<std::int64_t>(k);
    rows.targets[at] = (delta.value[k] - op.means[k]) / op.stds[k];
    rows.inside[at] = rows.outside[at] = 1.0f;
  }
}

}  // namespace

Prepared prepare(const RoiTargets& op, const KernelSpec& spec, const Settings& settings) {
  const std::int64_t batch = spec.in[2].shape[0], truth = spec.in[2].shape[1];
  const std::int64_t rois = spec.in[0].shape[0] / batch, candidates = rois + truth;
  Carver carver;
  Memory(carver, candidates);
  Prepared prepared;
  prepared.implementation = "plain";
  prepared.workspace_bytes = carver.used();
  prepared.run = [=, threads = settings.threads](const KernelArgs& args) {
    Carver cut(args.workspace);
    const Memory memory(cut, candidates);
    const RandomKey key = *args.in[4].as<const RandomKey>();
    for (std::int64_t n = 0; n < batch; ++n) {
      const Candidates from{args.in[0].as<const Roi>() + n * rois,
                            std::clamp<std::int64_t>(args.in[1].as<const std::int32_t>()[n], 0, rois),
                            args.in[2].as<const GroundTruth>() + n * truth,
                            std::clamp<std::int64_t>(args.in[3].as<const std::int32_t>()[n], 0, truth)};
      sort_into_parts(op, from, memory, threads);
      const auto wanted =
          static_cast<std::int64_t>(std::nearbyint(op.foreground_fraction * static_cast<double>(op.batch)));
      const std::int64_t foreground =
          draw(Part::foreground, Part::none, wanted, key, n, RandomStream::foreground_rois, from.size(),
               memory.order, memory.part);
      const std::int64_t background =
          draw(Part::background, Part::none, op.batch - foreground, key, n, RandomStream::background_rois,
               from.size(), memory.order, memory.part);
      const std::int64_t columns = 4 * op.classes, first = n * op.batch;
      const Rows rows{args.out[0].as<Roi>() + first, args.out[1].as<std::int32_t>() + first,
                      args.out[2].as<float>() + first * columns, args.out[3].as<float>() + first * columns,
                      args.out[4].as<float>() + first * columns};
      std::fill_n(rows.rois, op.batch, Roi{static_cast<float>(n), {0, 0, 0, 0}});
      std::fill_n(rows.labels, op.batch, -1);
      for (float* map : {rows.targets, rows.inside, rows.outside}) std::fill_n(map, op.batch * columns, 0.0f);
      std::int64_t row = 0;
      for (const Part part : {Part::foreground, Part::background})
        for (std::int64_t i = 0; i < from.size(); ++i)
          if (memory.part[i] == part) fill_row(op, from, i, memory, rows, row++);
      args.out[5].as<std::int32_t>()[n] = static_cast<std::int32_t>(foreground + background);
    }
  };
  return prepared;
}

}  // namespace frcnn::cpu
