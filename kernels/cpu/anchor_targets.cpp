// RPN targets (SPEC section 9). Overlaps are computed twice rather than stored: a map has 20,000 anchors and
// more.
#include <algorithm>

#include "carve.h"
#include "cpu/draw.h"
#include "kernels.h"
#include "parallel.h"
#include "philox.h"
#include "target_math.h"

namespace frcnn::cpu {
namespace {

// One image.
struct Image {
  const GroundTruth* boxes;
  std::int64_t count;
  float height, width;
};

struct Memory {
  double* best;          // by chunk and box: the largest overlap of an inside anchor
  std::int32_t* owner;   // by anchor: the box it overlaps most
  std::uint64_t* order;  // candidates of a draw

  Memory(Carver& carver, std::int64_t chunks, std::int64_t boxes, std::int64_t anchors)
      : best(carver.take<double>(chunks * boxes)),
        owner(carver.take<std::int32_t>(anchors)),
        order(carver.take<std::uint64_t>(anchors)) {}
};

class AnchorMap {
 public:
  AnchorMap(const AnchorTargets& op, const Image& image) : op_(op), image_(image) {}
  std::int64_t size() const {
    return op_.height * op_.width * static_cast<std::int64_t>(op_.base_anchors.size());
  }
  Box at(std::int64_t i) const {
    const auto anchors = static_cast<std::int64_t>(op_.base_anchors.size());
    const auto& base = op_.base_anchors[static_cast<std::size_t>(i % anchors)];
    const float x = op_.feat_stride * static_cast<float>(i / anchors % op_.width);
    const float y = op_.feat_stride * static_cast<float>(i / anchors / op_.width);
    return {base[0] + x, base[1] + y, base[2] + x, base[3] + y};
  }
  bool inside(const Box& box) const {
    const double border = op_.allowed_border;
    return box.x1 >= -border && box.y1 >= -border && box.x2 < image_.width + border &&
           box.y2 < image_.height + border;
  }

 private:
  const AnchorTargets& op_;
  const Image& image_;
};

// The best overlap of each box with an inside anchor, into the first row of memory.best; labels by overlap
// alone.
void label_by_overlap(const AnchorTargets& op, const Image& image, const AnchorMap& map, std::int64_t boxes,
                      int threads, Memory& memory, std::int32_t* labels) {
  std::fill_n(memory.best, threads * boxes, 0.0);
  parallel_for(map.size(), threads, [&](std::int64_t begin, std::int64_t end, int chunk) {
    double* best = memory.best + chunk * boxes;
    for (std::int64_t i = begin; i < end; ++i) {
      labels[i] = -1;
      memory.owner[i] = -1;
      const Box anchor = map.at(i);
      if (!map.inside(anchor)) continue;
      double most = -1;
      for (std::int64_t g = 0; g < image.count; ++g) {
        const double iou = overlap(anchor, image.boxes[g].box);
        best[g] = std::max(best[g], iou);
        if (iou > most) {
          most = iou;
          memory.owner[i] = static_cast<std::int32_t>(g);
        }
      }
      if (most < op.negative_iou) labels[i] = 0;
      if (most >= op.positive_iou) labels[i] = 1;
    }
  });
  for (int chunk = 1; chunk < threads; ++chunk)
    for (std::int64_t g = 0; g < image.count; ++g)
      memory.best[g] = std::max(memory.best[g], memory.best[chunk * boxes + g]);
}

// Every anchor that ties the best overlap of a box is that box's.
void label_best(const AnchorTargets& op, const Image& image, const AnchorMap& map, int threads,
                const Memory& memory, std::int32_t* labels) {
  const auto claims = [&](std::int64_t g) {
    return (memory.best[g] > 0 || op.untouched == UntouchedBoxes::release) &&
           (op.positives == PositiveAnchors::always || memory.best[g] < op.positive_iou);
  };
  parallel_for(map.size(), threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const Box anchor = map.at(i);
      if (!map.inside(anchor)) continue;
      for (std::int64_t g = 0; g < image.count && labels[i] != 1; ++g)
        if (claims(g) && overlap(anchor, image.boxes[g].box) == memory.best[g]) labels[i] = 1;
    }
  });
}

}  // namespace

Prepared prepare(const AnchorTargets& op, const KernelSpec& spec, const Settings& settings) {
  const std::int64_t batch = spec.in[0].shape[0], boxes = spec.in[0].shape[1];
  const std::int64_t anchors = op.height * op.width * static_cast<std::int64_t>(op.base_anchors.size());
  const int threads = static_cast<int>(std::clamp<std::int64_t>(settings.threads, 1, anchors));
  Carver carver;
  Memory(carver, threads, boxes, anchors);
  Prepared prepared;
  prepared.implementation = "plain";
  prepared.workspace_bytes = carver.used();
  prepared.run = [=](const KernelArgs& args) {
    Carver cut(args.workspace);
    Memory memory(cut, threads, boxes, anchors);
    const RandomKey key = *args.in[3].as<const RandomKey>();
    for (std::int64_t n = 0; n < batch; ++n) {
      const float* im_info = args.in[2].as<const float>() + n * 3;
      const Image image{args.in[0].as<const GroundTruth>() + n * boxes,
                        std::clamp<std::int64_t>(args.in[1].as<const std::int32_t>()[n], 0, boxes),
                        im_info[0], im_info[1]};
      const AnchorMap map(op, image);
      auto* labels = args.out[0].as<std::int32_t>() + n * anchors;
      label_by_overlap(op, image, map, boxes, threads, memory, labels);
      label_best(op, image, map, threads, memory, labels);
      const auto most = static_cast<std::int64_t>(op.positive_fraction * static_cast<double>(op.batch));
      const std::int64_t positives =
          draw(1, -1, most, key, n, RandomStream::positive_anchors, anchors, memory.order, labels);
      const std::int64_t negatives = draw(0, -1, op.batch - positives, key, n, RandomStream::negative_anchors,
                                          anchors, memory.order, labels);
      const double outside = op.norm == LossNorm::caffe
                                 ? 1.0 / static_cast<double>(std::max<std::int64_t>(positives + negatives, 1))
                                 : op.lambda / static_cast<double>(op.height * op.width);
      auto* targets = args.out[1].as<BoxDelta>() + n * anchors;
      auto* inside_weights = args.out[2].as<BoxDelta>() + n * anchors;
      auto* outside_weights = args.out[3].as<BoxDelta>() + n * anchors;
      parallel_for(anchors, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          const std::int32_t owner = memory.owner[i];
          const float in = labels[i] == 1 ? 1.0f : 0.0f,
                      out = labels[i] >= 0 ? static_cast<float>(outside) : 0.0f;
          targets[i] = owner < 0 ? BoxDelta{} : encode(map.at(i), image.boxes[owner].box);
          inside_weights[i] = {{in, in, in, in}};
          outside_weights[i] = {{out, out, out, out}};
        }
      });
    }
  };
  return prepared;
}

}  // namespace frcnn::cpu
