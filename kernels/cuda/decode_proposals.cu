// Anchors -> clipped, filtered candidate boxes (SPEC section 5, steps 1 to 3), the CPU's bits. One thread
// decodes one anchor of one cell; anchors travel as a kernel parameter, a group at a time. Bound by the
// launch and by writing the boxes.
#include "box_math.h"
#include "clear_flag.h"
#include "kernels.h"
#include "launch.h"
#include "own_map.h"
#include "storage.h"

#include <algorithm>
#include <vector>

namespace frcnn::cuda {
namespace {

constexpr int kGroup = 64;  // anchors of one launch: 1 KB of the 4 KB that parameters may take

struct Anchors {
  Box base[kGroup];
  int first, count, all;  // the group's place among all anchors of a cell
};

struct Maps {
  int height, width;
  float feat_stride, min_size;
};

__global__ void __launch_bounds__(128)
    decode_proposals_kernel(const float* prob, const Box* deltas, const float* im_info,
                            const std::int32_t* map_sizes, Box* boxes, float* scores, int* nonfinite, Maps m,
                            __grid_constant__ const Anchors anchors, std::int64_t n) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
    const std::int64_t cell = i / anchors.count;
    const int in_group = static_cast<int>(i % anchors.count), a = anchors.first + in_group;
    const int x = static_cast<int>(cell % m.width), y = static_cast<int>(cell / m.width % m.height);
    const int image = static_cast<int>(cell / m.width / m.height);
    const float* const info = im_info + image * 3;
    const OwnMap own = own_map(rpn_sizes(map_sizes, image), m.height, m.width);
    const float shift_x = ieee::mul(m.feat_stride, static_cast<float>(x));
    const float shift_y = ieee::mul(m.feat_stride, static_cast<float>(y));
    const Box base = anchors.base[in_group];
    const Box anchor{ieee::add(base.x1, shift_x), ieee::add(base.y1, shift_y), ieee::add(base.x2, shift_x),
                     ieee::add(base.y2, shift_y)};
    const Box d = deltas[cell * anchors.all + a];
    const float score = prob[cell * 2 * anchors.all + anchors.all + a];
    const bool finite =
        is_finite(score) && is_finite(d.x1) && is_finite(d.y1) && is_finite(d.x2) && is_finite(d.y2);
    if (!finite) atomicOr(nonfinite, 1);
    const Box box = clip(decode(anchor, d.x1, d.y1, d.x2, d.y2), info[0], info[1]);
    const bool padding = x >= own.columns || y >= own.rows;
    const bool stays = finite && !padding && is_at_least(box, ieee::mul(m.min_size, info[2]));
    boxes[cell * anchors.all + a] = box;
    scores[cell * anchors.all + a] = stays ? score : ieee::from_bits(0xFF800000u);  // minus infinity
  }
}

}  // namespace

Prepared prepare(const DecodeProposals& op, const KernelSpec& spec, const Settings&) {
  const Shape& s = spec.in[0].shape;
  const Maps maps{static_cast<int>(s[1]), static_cast<int>(s[2]), op.feat_stride, op.min_size};
  std::vector<Anchors> groups;
  const auto all = static_cast<int>(op.base_anchors.size());
  for (int first = 0; first < all; first += kGroup) {
    Anchors group{{}, first, std::min(kGroup, all - first), all};
    for (int i = 0; i < group.count; ++i) {
      const auto& b = op.base_anchors[static_cast<std::size_t>(first + i)];
      group.base[i] = {b[0], b[1], b[2], b[3]};
    }
    groups.push_back(group);
  }
  Prepared prepared;
  prepared.implementation = "decode_proposals";
  prepared.run = [maps, groups, cells = s[0] * s[1] * s[2]](const KernelArgs& args) {
    const auto stream = static_cast<cudaStream_t>(args.stream);
    int* const nonfinite = args.out[2].as<int>();
    clear_flag(nonfinite, stream);
    if (cells == 0) return;
    for (const Anchors& group : groups) {
      const std::int64_t n = cells * group.count;
      launch(decode_proposals_kernel, blocks_for(n, 128), dim3(128), 0, stream, args.in[0].as<const float>(),
             args.in[1].as<const Box>(), args.in[2].as<const float>(),
             args.in.size() > 3 ? args.in[3].as<const std::int32_t>() : nullptr, args.out[0].as<Box>(),
             args.out[1].as<float>(), nonfinite, maps, group, n);
    }
  };
  return prepared;
}

}  // namespace frcnn::cuda
