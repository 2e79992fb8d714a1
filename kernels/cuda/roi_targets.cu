// RoIs for the head and what they should become (SPEC section 10), the CPU's draws from equal inputs.
// Candidates of an image are its proposals, then its ground truth; one thread a candidate in each launch:
//   sort   its best box, whether it is foreground or background, its key in the draw
//   draw   counts the keys of its part below its own: drawn or not
//   place  counts the drawn ones before it: its row, which it writes
// Two thousand candidates squared bound it.
#include <cmath>
#include <limits>
#include <string>

#include "f32_only.h"
#include "launch.h"
#include "philox.h"
#include "storage.h"
#include "target_math.h"

namespace frcnn::cuda {
namespace {

constexpr int kThreads = 128;
enum Part : int { kNone, kForeground, kBackground };

struct Roi {
  float image;
  Box box;
};
struct Rules {
  double foreground_iou, background_high, background_low;
  int foreground, batch;  // at most
  int classes;
  float means[4], stds[4];
};

// Inputs, and by candidate in the workspace: best box, part, part if drawn, key.
struct Work {
  const Roi* rois;
  const int* roi_count;
  const GroundTruth* truth;
  const int* truth_count;
  const RandomKey* key;
  unsigned long long* order;
  int *owner, *part, *drawn;
  int roi_rows, truth_rows, rows;  // capacities of an image, rows = both together

  __device__ int rois_of(int image) const { return min(max(roi_count[image], 0), roi_rows); }
  __device__ int truth_of(int image) const { return min(max(truth_count[image], 0), truth_rows); }
  __device__ int candidates_of(int image) const { return rois_of(image) + truth_of(image); }
  __device__ Box candidate(int image, int i) const {
    const int n = rois_of(image);
    return i < n ? rois[std::int64_t{image} * roi_rows + i].box
                 : truth[std::int64_t{image} * truth_rows + i - n].box;
  }
};

struct Out {
  Roi* rois;
  int* labels;
  float *targets, *inside, *outside;
  int* count;
};

__global__ void __launch_bounds__(256)
    roi_targets_clear_kernel(Out out, int batch, int columns, std::int64_t rows) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < rows * columns; i += step) {
    out.targets[i] = out.inside[i] = out.outside[i] = 0.0f;
    if (i >= rows) continue;
    out.rois[i] = {static_cast<float>(i / batch), {0, 0, 0, 0}};
    out.labels[i] = -1;
  }
}

// blockIdx.y is the image, here and below.
__global__ void __launch_bounds__(kThreads)
    roi_targets_sort_kernel(__grid_constant__ const Work w, __grid_constant__ const Rules rules) {
  const int image = blockIdx.y, i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= w.candidates_of(image)) return;
  const GroundTruth* const truth = w.truth + std::int64_t{image} * w.truth_rows;
  const Box box = w.candidate(image, i);
  const int boxes = w.truth_of(image);
  double most = 0;
  int owner = 0;
  for (int g = 0; g < boxes; ++g) {
    const double iou = overlap(box, truth[g].box);
    if (iou > most) {
      most = iou;
      owner = g;
    }
  }
  const bool background = most < rules.background_high && most >= rules.background_low;
  const Part part = boxes > 0 && most >= rules.foreground_iou ? kForeground
                    : background                              ? kBackground
                                                              : kNone;
  const std::int64_t at = std::int64_t{image} * w.rows + i;
  const auto index = static_cast<std::uint32_t>(i);
  w.owner[at] = owner;
  w.part[at] = part;
  w.order[at] = draw_order(
      w.key->of(static_cast<std::uint32_t>(image), index,
                part == kForeground ? RandomStream::foreground_rois : RandomStream::background_rois),
      index);
}

__global__ void __launch_bounds__(kThreads)
    roi_targets_draw_kernel(__grid_constant__ const Work w, __grid_constant__ const Rules rules, int* count) {
  const int image = blockIdx.y, i = blockIdx.x * blockDim.x + threadIdx.x, n = w.candidates_of(image);
  const std::int64_t first = std::int64_t{image} * w.rows;
  const int part = i < n ? w.part[first + i] : kNone;
  const unsigned long long order = i < n ? w.order[first + i] : 0;
  int foreground = 0, background = 0, rank = 0;
  for (int k = 0; k < n; ++k) {
    const int other = w.part[first + k];
    foreground += other == kForeground;
    background += other == kBackground;
    rank += other == part && w.order[first + k] < order;
  }
  const int take = min(foreground, rules.foreground), rest = min(background, rules.batch - take);
  if (i == 0) count[image] = take + rest;
  if (i < n) w.drawn[first + i] = rank < (part == kForeground ? take : rest) ? part : kNone;
}

__global__ void __launch_bounds__(kThreads)
    roi_targets_place_kernel(__grid_constant__ const Work w, __grid_constant__ const Rules rules, Out out) {
  const int image = blockIdx.y, i = blockIdx.x * blockDim.x + threadIdx.x, n = w.candidates_of(image);
  const std::int64_t first = std::int64_t{image} * w.rows;
  if (i >= n || w.drawn[first + i] == kNone) return;
  const int part = w.drawn[first + i];
  std::int64_t row = std::int64_t{image} * rules.batch;
  for (int k = 0; k < n; ++k) {
    const int other = w.drawn[first + k];
    row += (other == part && k < i) || (part == kBackground && other == kForeground);
  }
  const Box box = w.candidate(image, i);
  out.rois[row].box = box;
  out.labels[row] = 0;
  if (part != kForeground) return;
  const GroundTruth truth = w.truth[std::int64_t{image} * w.truth_rows + w.owner[first + i]];
  const int label = static_cast<int>(truth.class_id);
  out.labels[row] = label;
  if (label < 0 || label >= rules.classes) return;  // no class of this model: the loss says so
  const BoxDelta delta = encode(box, truth.box);
  for (int k = 0; k < 4; ++k) {
    const std::int64_t at = (row * rules.classes + label) * 4 + k;
    out.targets[at] = ieee::div(ieee::sub(delta.value[k], rules.means[k]), rules.stds[k]);
    out.inside[at] = out.outside[at] = 1.0f;
  }
}

}  // namespace

Prepared prepare(const RoiTargets& op, const KernelSpec& spec, const Settings&) {
  require_f32(spec, "roi_targets");
  const std::int64_t images = spec.in[2].shape[0], truth_rows = spec.in[2].shape[1];
  const std::int64_t roi_rows = images == 0 ? 0 : spec.in[0].shape[0] / images,
                     candidates = roi_rows + truth_rows;
  constexpr std::int64_t most = std::numeric_limits<int>::max() / 2;
  if (candidates > most || images > 65535 || op.batch > most || op.classes > most / 4)
    throw Error(ErrorCode::unsupported,
                "roi_targets: " + std::to_string(images) + " images of " + std::to_string(candidates) +
                    " candidates, " + std::to_string(op.batch) + " drawn, are more than this kernel takes");
  Rules rules{op.foreground_iou,
              op.background_iou_high,
              op.background_iou_low,
              static_cast<int>(std::nearbyint(op.foreground_fraction * static_cast<double>(op.batch))),
              static_cast<int>(op.batch),
              static_cast<int>(op.classes),
              {},
              {}};
  for (std::size_t k = 0; k < 4; ++k) {
    rules.means[k] = op.means[k];
    rules.stds[k] = op.stds[k];
  }
  Work work{};
  work.roi_rows = static_cast<int>(roi_rows);
  work.truth_rows = static_cast<int>(truth_rows);
  work.rows = static_cast<int>(candidates);
  Prepared prepared;
  prepared.implementation = "roi_targets";
  prepared.workspace_bytes =
      static_cast<std::size_t>(images * candidates) * (sizeof(std::uint64_t) + 3 * sizeof(int));
  prepared.run = [=](const KernelArgs& args) {
    if (images == 0) return;
    const auto stream = static_cast<cudaStream_t>(args.stream);
    const std::int64_t all = images * candidates, rows = images * rules.batch;
    Work w = work;
    w.rois = args.in[0].as<const Roi>();
    w.roi_count = args.in[1].as<const int>();
    w.truth = args.in[2].as<const GroundTruth>();
    w.truth_count = args.in[3].as<const int>();
    w.key = args.in[4].as<const RandomKey>();
    w.order = static_cast<unsigned long long*>(args.workspace);
    w.owner = reinterpret_cast<int*>(w.order + all);
    w.part = w.owner + all;
    w.drawn = w.part + all;
    const Out out{args.out[0].as<Roi>(),   args.out[1].as<int>(),   args.out[2].as<float>(),
                  args.out[3].as<float>(), args.out[4].as<float>(), args.out[5].as<int>()};
    const auto x = static_cast<unsigned>(candidates < 1 ? 1 : (candidates + kThreads - 1) / kThreads);
    const dim3 grid(x, static_cast<unsigned>(images)), block(kThreads);
    launch(roi_targets_clear_kernel, blocks_for(rows * rules.classes * 4, 256), dim3(256), 0, stream, out,
           rules.batch, rules.classes * 4, rows);
    launch(roi_targets_sort_kernel, grid, block, 0, stream, w, rules);
    launch(roi_targets_draw_kernel, grid, block, 0, stream, w, rules, out.count);
    launch(roi_targets_place_kernel, grid, block, 0, stream, w, rules, out);
  };
  return prepared;
}

}  // namespace frcnn::cuda
