// Class boxes in pixels of the original image (SPEC section 7, steps 1 and 2). Rows behind an image's count
// are decoded like any other; nobody reads them.
#include "box_math.h"
#include "kernels.h"
#include "parallel.h"

namespace frcnn::cpu {

Prepared prepare(const DecodeBoxes&, const KernelSpec& spec, const Settings& settings) {
  const std::int64_t rows = spec.in[0].shape[0], classes = spec.in[1].shape[1] / 4,
                     batch = spec.in[2].shape[0];
  const std::int64_t per_image = batch > 0 ? rows / batch : 0;
  const int threads = settings.threads;
  Prepared prepared;
  prepared.implementation = "plain";
  prepared.run = [rows, classes, per_image, threads](const KernelArgs& args) {
    parallel_for(rows, threads, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const float* roi = args.in[0].as<const float>() + r * 5;
        const float scale = args.in[2].as<const float>()[r / per_image * 3 + 2];
        const float* image_size = args.in[3].as<const float>() + r / per_image * 2;
        const Box from{ieee::div(roi[1], scale), ieee::div(roi[2], scale), ieee::div(roi[3], scale),
                       ieee::div(roi[4], scale)};
        for (std::int64_t c = 0; c < classes; ++c) {
          const float* d = args.in[1].as<const float>() + (r * classes + c) * 4;
          args.out[0].as<Box>()[r * classes + c] =
              clip(decode(from, d[0], d[1], d[2], d[3]), image_size[0], image_size[1]);
        }
      }
    });
  };
  return prepared;
}

}  // namespace frcnn::cpu
