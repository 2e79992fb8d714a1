// RPN targets (SPEC section 9), the CPU's labels and draws from equal inputs:
//   store    base anchors from the launch's parameters to the workspace, a group at a time
//   clear    the best overlap of each box, counters
//   overlap  one thread an anchor: its best box and its label by overlap alone; of each box the largest
//   overlap,
//            a maximum over the warp and then an integer atomic (doubles that are not negative order like
//            integers)
//   claim    anchors that tie a box's largest overlap become positive; candidates of both draws are gathered,
//            in whatever order
//   draw     each candidate counts the keys below its own; those beyond the number wanted drop out
//   fill     targets and weights
// Bound by the overlaps in double, and by candidates squared in the draw.
#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "f32_only.h"
#include "launch.h"
#include "philox.h"
#include "storage.h"
#include "target_math.h"

namespace frcnn::cuda {
namespace {

constexpr int kGroup = 64, kThreads = 128, kTile = 1024;
using Order = unsigned long long;

struct BaseAnchors {
  Box box[kGroup];
  int first, count;
};

struct Rules {
  double positive_iou, negative_iou, border;
  double drawn_weight;   // of each drawn anchor; negative: over the number drawn
  int positives, batch;  // at most
  bool always, claim_untouched;
};

// Inputs, workspace and what they measure; labels are the output.
struct Work {
  const GroundTruth* truth;
  const int* truth_count;
  const float* im_info;
  const RandomKey* key;
  int* labels;
  Box* base;
  Order* best;   // [images][boxes], bits of a double
  int* owner;    // [images][anchors]: the box it overlaps most, -1 outside
  Order* order;  // [images][2][anchors]
  int* found;    // [images][2]: positive, negative
  int boxes, anchors, base_count, width;
  float feat_stride;

  __device__ int truth_of(int image) const { return min(max(truth_count[image], 0), boxes); }
  __device__ Box anchor(int i) const {
    const Box b = base[i % base_count];
    const float x = ieee::mul(feat_stride, static_cast<float>(i / base_count % width));
    const float y = ieee::mul(feat_stride, static_cast<float>(i / base_count / width));
    return {ieee::add(b.x1, x), ieee::add(b.y1, y), ieee::add(b.x2, x), ieee::add(b.y2, y)};
  }
  __device__ bool inside(const Box& box, int image, double border) const {
    const float height_here = im_info[image * 3], width_here = im_info[image * 3 + 1];
    return box.x1 >= -border && box.y1 >= -border &&
           box.x2 < ieee::add(static_cast<double>(width_here), border) &&
           box.y2 < ieee::add(static_cast<double>(height_here), border);
  }
};

__global__ void anchor_store_kernel(__grid_constant__ const BaseAnchors group, Box* base) {
  if (static_cast<int>(threadIdx.x) < group.count) base[group.first + threadIdx.x] = group.box[threadIdx.x];
}

__global__ void __launch_bounds__(kThreads) anchor_clear_kernel(__grid_constant__ const Work w, int images) {
  const int step = gridDim.x * blockDim.x;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < images * max(w.boxes, 2); i += step) {
    if (i < images * w.boxes) w.best[i] = 0;
    if (i < images * 2) w.found[i] = 0;
  }
}

// blockIdx.y is the image, here and below.
__global__ void __launch_bounds__(kThreads)
    anchor_overlap_kernel(__grid_constant__ const Work w, __grid_constant__ const Rules rules) {
  const int image = blockIdx.y, i = blockIdx.x * blockDim.x + threadIdx.x;
  const GroundTruth* const truth = w.truth + std::int64_t{image} * w.boxes;
  const Box anchor = i < w.anchors ? w.anchor(i) : Box{};
  const bool inside = i < w.anchors && w.inside(anchor, image, rules.border);
  double most = -1;
  int owner = -1;
  for (int g = 0; g < w.truth_of(image); ++g) {
    const double iou = inside ? overlap(anchor, truth[g].box) : 0;
    if (inside && iou > most) {
      most = iou;
      owner = g;
    }
    double largest = iou;
    for (int lane = 16; lane > 0; lane /= 2) {
      const double other = __shfl_xor_sync(0xFFFFFFFFu, largest, lane);
      largest = other > largest ? other : largest;
    }
    if (threadIdx.x % 32 == 0 && largest > 0)
      atomicMax(&w.best[std::int64_t{image} * w.boxes + g],
                static_cast<Order>(__double_as_longlong(largest)));
  }
  if (i >= w.anchors) return;
  const std::int64_t at = std::int64_t{image} * w.anchors + i;
  w.owner[at] = owner;
  w.labels[at] = !inside ? -1 : most >= rules.positive_iou ? 1 : most < rules.negative_iou ? 0 : -1;
}

__device__ bool claimed(const Work& w, const Rules& rules, int image, const Box& anchor) {
  const GroundTruth* const truth = w.truth + std::int64_t{image} * w.boxes;
  for (int g = 0; g < w.truth_of(image); ++g) {
    const double best =
        __longlong_as_double(static_cast<long long>(w.best[std::int64_t{image} * w.boxes + g]));
    if (!(best > 0) && !rules.claim_untouched) continue;
    if (!rules.always && best >= rules.positive_iou) continue;
    if (overlap(anchor, truth[g].box) == best) return true;
  }
  return false;
}

__global__ void __launch_bounds__(kThreads)
    anchor_claim_kernel(__grid_constant__ const Work w, __grid_constant__ const Rules rules) {
  const int image = blockIdx.y, i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= w.anchors) return;
  const std::int64_t at = std::int64_t{image} * w.anchors + i;
  const Box anchor = w.anchor(i);
  if (w.labels[at] != 1 && w.inside(anchor, image, rules.border) && claimed(w, rules, image, anchor))
    w.labels[at] = 1;
  if (w.labels[at] < 0) return;
  const int part = w.labels[at] == 1 ? 0 : 1;
  const auto index = static_cast<std::uint32_t>(i);
  const std::uint32_t key =
      w.key->of(static_cast<std::uint32_t>(image), index,
                part == 0 ? RandomStream::positive_anchors : RandomStream::negative_anchors);
  const int slot = atomicAdd(&w.found[image * 2 + part], 1);
  w.order[(std::int64_t{image} * 2 + part) * w.anchors + slot] = draw_order(key, index);
}

// How many of a part are drawn.
__device__ int wanted(const Work& w, const Rules& rules, int image, int part) {
  const int positives = min(w.found[image * 2], rules.positives);
  return part == 0 ? positives : min(w.found[image * 2 + 1], rules.batch - positives);
}

// blockIdx.z is the part.
__global__ void __launch_bounds__(kThreads)
    anchor_draw_kernel(__grid_constant__ const Work w, __grid_constant__ const Rules rules) {
  __shared__ Order tile[kTile];
  const int image = blockIdx.y, part = blockIdx.z, i = blockIdx.x * blockDim.x + threadIdx.x;
  const int found = w.found[image * 2 + part], most = wanted(w, rules, image, part);
  if (found <= most || static_cast<int>(blockIdx.x * blockDim.x) >= found) return;  // the whole block
  const Order* const orders = w.order + (std::int64_t{image} * 2 + part) * w.anchors;
  const Order mine = i < found ? orders[i] : 0;
  int rank = 0;
  for (int first = 0; first < found; first += kTile) {
    const int n = min(kTile, found - first);
    for (int k = threadIdx.x; k < n; k += blockDim.x) tile[k] = orders[first + k];
    __syncthreads();
    for (int k = 0; k < n; ++k) rank += tile[k] < mine;
    __syncthreads();
  }
  if (i < found && rank >= most)
    w.labels[std::int64_t{image} * w.anchors + static_cast<std::int64_t>(mine & 0xFFFFFFFFu)] = -1;
}

__global__ void __launch_bounds__(kThreads)
    anchor_fill_kernel(__grid_constant__ const Work w, __grid_constant__ const Rules rules, BoxDelta* targets,
                       BoxDelta* inside, BoxDelta* outside) {
  const int image = blockIdx.y, i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= w.anchors) return;
  const std::int64_t at = std::int64_t{image} * w.anchors + i;
  const int drawn = wanted(w, rules, image, 0) + wanted(w, rules, image, 1);
  const double weight =
      rules.drawn_weight < 0 ? ieee::div(1.0, static_cast<double>(max(drawn, 1))) : rules.drawn_weight;
  const float in = w.labels[at] == 1 ? 1.0f : 0.0f,
              out = w.labels[at] >= 0 ? static_cast<float>(weight) : 0.0f;
  const int owner = w.owner[at];
  targets[at] =
      owner < 0 ? BoxDelta{} : encode(w.anchor(i), w.truth[std::int64_t{image} * w.boxes + owner].box);
  inside[at] = {{in, in, in, in}};
  outside[at] = {{out, out, out, out}};
}

int limited(std::int64_t n) {
  return static_cast<int>(std::min<std::int64_t>(n, std::numeric_limits<int>::max()));
}

}  // namespace

Prepared prepare(const AnchorTargets& op, const KernelSpec& spec, const Settings&) {
  require_f32(spec, "anchor_targets");
  const std::int64_t images = spec.in[0].shape[0], boxes = spec.in[0].shape[1];
  const auto base_count = static_cast<int>(op.base_anchors.size());
  const std::int64_t anchors = op.height * op.width * base_count;
  if (anchors > std::numeric_limits<int>::max() / 2 || images > 65535 ||
      images * std::max<std::int64_t>(boxes, 2) > std::numeric_limits<int>::max() / 2)
    throw Error(ErrorCode::unsupported, "anchor_targets: " + std::to_string(images) + " images of " +
                                            std::to_string(anchors) + " anchors and " +
                                            std::to_string(boxes) + " boxes are more than this kernel takes");
  std::vector<BaseAnchors> groups;
  for (int i = 0; i < base_count; ++i) {
    if (i % kGroup == 0) groups.push_back({{}, i, 0});
    const auto& b = op.base_anchors[static_cast<std::size_t>(i)];
    groups.back().box[groups.back().count++] = {b[0], b[1], b[2], b[3]};
  }
  Rules rules{op.positive_iou,
              op.negative_iou,
              op.allowed_border,
              -1,
              limited(static_cast<std::int64_t>(op.positive_fraction * static_cast<double>(op.batch))),
              limited(op.batch),
              op.positives == PositiveAnchors::always,
              op.untouched == UntouchedBoxes::release};
  if (op.norm == LossNorm::paper) rules.drawn_weight = op.lambda / static_cast<double>(op.height * op.width);
  Work work{};
  work.boxes = static_cast<int>(boxes);
  work.anchors = static_cast<int>(anchors);
  work.base_count = base_count;
  work.width = static_cast<int>(op.width);
  work.feat_stride = op.feat_stride;
  // The workspace, largest alignment first.
  const std::int64_t order_at = 0, best_at = order_at + images * 2 * anchors * 8,
                     base_at = best_at + images * boxes * 8;
  const std::int64_t owner_at = base_at + base_count * 16, found_at = owner_at + images * anchors * 4;
  Prepared prepared;
  prepared.implementation = "anchor_targets";
  prepared.workspace_bytes = static_cast<std::size_t>(found_at + images * 2 * 4);
  prepared.run = [=](const KernelArgs& args) {
    if (images == 0) return;
    const auto stream = static_cast<cudaStream_t>(args.stream);
    auto* const memory = static_cast<std::byte*>(args.workspace);
    Work w = work;
    w.truth = args.in[0].as<const GroundTruth>();
    w.truth_count = args.in[1].as<const int>();
    w.im_info = args.in[2].as<const float>();
    w.key = args.in[3].as<const RandomKey>();
    w.labels = args.out[0].as<int>();
    w.order = reinterpret_cast<Order*>(memory + order_at);
    w.best = reinterpret_cast<Order*>(memory + best_at);
    w.base = reinterpret_cast<Box*>(memory + base_at);
    w.owner = reinterpret_cast<int*>(memory + owner_at);
    w.found = reinterpret_cast<int*>(memory + found_at);
    const auto y = static_cast<unsigned>(images),
               x = static_cast<unsigned>((anchors + kThreads - 1) / kThreads);
    for (const BaseAnchors& group : groups)
      launch(anchor_store_kernel, dim3(1), dim3(kGroup), 0, stream, group, w.base);
    launch(anchor_clear_kernel, blocks_for(images * std::max<std::int64_t>(boxes, 2), kThreads, 1024),
           dim3(kThreads), 0, stream, w, static_cast<int>(images));
    launch(anchor_overlap_kernel, dim3(x, y), dim3(kThreads), 0, stream, w, rules);
    launch(anchor_claim_kernel, dim3(x, y), dim3(kThreads), 0, stream, w, rules);
    launch(anchor_draw_kernel, dim3(x, y, 2), dim3(kThreads), 0, stream, w, rules);
    launch(anchor_fill_kernel, dim3(x, y), dim3(kThreads), 0, stream, w, rules, args.out[1].as<BoxDelta>(),
           args.out[2].as<BoxDelta>(), args.out[3].as<BoxDelta>());
  };
  return prepared;
}

}  // namespace frcnn::cuda
