// Everything after the heads, stage by stage: from equal inputs the CUDA kernels and the CPU's give equal
// bits. The stages feed each other, so that the inputs are of the kind that a detection has.
#include <vector>

#include "ops/op_runner.h"

using namespace frcnn;
using namespace frcnn::test;

namespace {

// Both devices' outputs, which must be the same; the CPU's go on.
template <class O>
std::vector<Tensor> on_both(const O& op, const std::vector<Tensor>& in) {
  std::vector<TensorSpec> specs;
  for (const Tensor& tensor : in) specs.push_back(tensor.spec);
  const std::vector<TensorSpec> out = infer(op, specs, "test");
  const std::vector<Tensor> cpu =
      run_once(cpu::prepare(op, KernelSpec{specs, out}, cpu::Settings{}), in, out, 0xFF);
  const std::vector<Tensor> cuda =
      run_once(cuda::prepare(op, KernelSpec{specs, out}, cuda_settings()), in, out, 0x3C, Place::device);
  INFO(name_of(Op(op)));
  CHECK(same_bytes(cpu, cuda));
  return cpu;
}

// The chain for maps of random scores and deltas; returns how many detections came out.
int detect(std::int64_t batch, std::int64_t height, std::int64_t width, float spread, unsigned salt) {
  DecodeProposals decode;
  for (int a = 0; a < 9; ++a) {
    const float w = 24.0f + 20.0f * static_cast<float>(a / 3),
                h = w * (0.5f + 0.5f * static_cast<float>(a % 3));
    decode.base_anchors.push_back({7.5f - w, 7.5f - h, 7.5f + w, 7.5f + h});
  }
  std::vector<float> info, size;
  for (std::int64_t n = 0; n < batch; ++n) {
    const float h = 16.0f * static_cast<float>(height) - 3.0f * static_cast<float>(n);
    const float w = 16.0f * static_cast<float>(width) - 7.0f * static_cast<float>(n);
    info.insert(info.end(), {h, w, 1.25f});
    size.insert(size.end(), {h / 1.25f, w / 1.25f});
  }
  const Tensor im_info = f32({batch, 3}, info), image_size = f32({batch, 2}, size);
  const auto prob = on_both(Softmax{9}, {uniform({batch, height, width, 18}, -spread, spread, salt)});
  const auto proposals =
      on_both(decode, {prob[0], uniform({batch, height, width, 36}, -0.8f, 0.8f, salt + 1), im_info});
  const auto best = on_both(TopK{300}, {proposals[0], proposals[1]});
  const std::int64_t per_image = 24, classes = 4;
  const auto rois = on_both(Nms{0.7f, Suppress::above, per_image}, {best[0], best[1], best[2]});
  const Tensor map = uniform({batch, height, width, 8}, -1, 1, salt + 2);
  on_both(RoiPool{7, 7, 0.0625f}, {map, rois[0]});
  on_both(RoiAlign{7, 7, 0.0625f, 0, true}, {map, rois[0]});
  const auto scores = on_both(Softmax{1}, {uniform({batch * per_image, classes}, -spread, spread, salt + 3)});
  const auto boxes = on_both(
      DecodeBoxes{},
      {rois[0], uniform({batch * per_image, 4 * classes}, -0.6f, 0.6f, salt + 4), im_info, image_size});
  const auto detections = on_both(SelectDetections{}, {scores[0], boxes[0], rois[2]});
  int count = 0;
  for (const std::int32_t n : detections[1].as<std::int32_t>()) count += n;
  return count;
}

}  // namespace

TEST_CASE("from scores and deltas to detections, both devices give the same bits") {
  CHECK(detect(1, 9, 13, 3.0f, 1) > 10);
  CHECK(detect(2, 5, 7, 12.0f, 11) > 10);
  CHECK(detect(1, 6, 6, 0.0f, 21) > 0);  // all scores equal
  CHECK(detect(1, 1, 1, 1.0f, 31) >= 0);
}

TEST_CASE("lrn: both devices give the same bits") {
  for (const LrnRegion region : {LrnRegion::within_channel, LrnRegion::across_channels}) {
    for (const int size : {1, 3, 5, 9})
      on_both(Lrn{region, size, 1.0f, 0.75f, 2.0f},
              {uniform({2, 6, 7, 13}, -20, 60, static_cast<unsigned>(size))});
  }
}
