// Max pooling by Caffe's rule: windows clipped to the map, start at -FLT_MAX, a value replaces only if it is
// greater (so a NaN never does). Rows go to threads.
#include <algorithm>

#include "cpu/max_of_cells.h"
#include "cpu/multiversion.h"
#include "cpu/parallel.h"
#include "cpu/save_argmax.h"
#include "cpu/storage.h"
#include "kernels.h"

namespace frcnn::cpu {

namespace {

struct Window {
  std::int64_t height, width, channels;  // of one source map
  std::int64_t out_width;
  std::int64_t kernel, stride, pad;
};

// One row of the output. `src` is the image's first element, `y` the row's index in the output.
template <class T>
FRCNN_INLINE void pool_row_of(const Window& w, const T* src, std::int64_t y, T* dst) {
  const std::int64_t y0 = std::max<std::int64_t>(y * w.stride - w.pad, 0);
  const std::int64_t y1 = std::min(y * w.stride - w.pad + w.kernel, w.height);
  for (std::int64_t x = 0; x < w.out_width; ++x, dst += w.channels) {
    const std::int64_t x0 = std::max<std::int64_t>(x * w.stride - w.pad, 0);
    const std::int64_t x1 = std::min(x * w.stride - w.pad + w.kernel, w.width);
    max_of_cells<T>(
        {src + (y0 * w.width + x0) * w.channels, y1 - y0, x1 - x0, w.width * w.channels, w.channels}, dst);
  }
}

FRCNN_MULTIVERSION void pool_row(const Window& w, const float* src, std::int64_t y, float* dst) {
  pool_row_of(w, src, y, dst);
}
FRCNN_MULTIVERSION void pool_row(const Window& w, const Bf16* src, std::int64_t y, Bf16* dst) {
  pool_row_of(w, src, y, dst);
}

}  // namespace

Prepared prepare(const MaxPool& op, const KernelSpec& spec, const Settings& settings) {
  if (op.save_argmax) return max_pool_with_argmax(op, spec, settings);
  const Shape &s = spec.in[0].shape, &d = spec.out[0].shape;
  const Window window{s[1], s[2], s[3], d[2], op.kernel, op.stride, op.pad};
  const DType dtype = one_storage(spec.in[0].dtype, spec.out[0].dtype, "max_pool");
  return with_storage(dtype, "max_pool", [&](auto stored) {
    using T = typename decltype(stored)::type;
    Prepared prepared;
    prepared.implementation = "plain";
    prepared.run = [window, rows = d[0] * d[1], out_height = d[1],
                    threads = settings.threads](const KernelArgs& args) {
      const T* src = args.in[0].as<const T>();
      T* dst = args.out[0].as<T>();
      parallel_for(rows, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row) {
          const T* image = src + row / out_height * window.height * window.width * window.channels;
          pool_row(window, image, row % out_height, dst + row * window.out_width * window.channels);
        }
      });
    };
    return prepared;
  });
}

}  // namespace frcnn::cpu
