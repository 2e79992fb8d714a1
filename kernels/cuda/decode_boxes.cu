// Class boxes in pixels of the original image (kernels/box_math.h). One thread, one box; the launch is the
// cost.
#include "box_math.h"
#include "kernels.h"
#include "launch.h"
#include "storage.h"

namespace frcnn::cuda {
namespace {

__global__ void __launch_bounds__(128)
    decode_boxes_kernel(const float* rois, const float* deltas, const float* im_info, const float* image_size,
                        Box* dst, int classes, std::int64_t per_image, std::int64_t n) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
    const std::int64_t r = i / classes, image = r / per_image;
    const float* const roi = rois + r * 5;
    const float scale = im_info[image * 3 + 2];
    const Box from{ieee::div(roi[1], scale), ieee::div(roi[2], scale), ieee::div(roi[3], scale),
                   ieee::div(roi[4], scale)};
    const float* const d = deltas + i * 4;
    dst[i] = clip(decode(from, d[0], d[1], d[2], d[3]), image_size[image * 2], image_size[image * 2 + 1]);
  }
}

}  // namespace

Prepared prepare(const DecodeBoxes&, const KernelSpec& spec, const Settings&) {
  const std::int64_t rows = spec.in[0].shape[0], per_image = rows / spec.in[2].shape[0];
  const auto classes = static_cast<int>(spec.in[1].shape[1] / 4);
  Prepared prepared;
  prepared.implementation = "decode_boxes";
  prepared.run = [=, n = rows * classes](const KernelArgs& args) {
    if (n == 0) return;
    launch(decode_boxes_kernel, blocks_for(n, 128), dim3(128), 0, static_cast<cudaStream_t>(args.stream),
           args.in[0].as<const float>(), args.in[1].as<const float>(), args.in[2].as<const float>(),
           args.in[3].as<const float>(), args.out[0].as<Box>(), classes, per_image, n);
  };
  return prepared;
}

}  // namespace frcnn::cuda
