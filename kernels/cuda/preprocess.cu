// Image to network input, bit for bit as SPEC section 1 states it: the sampling position in double, rounded
// to float32; mean subtracted in double; columns first, then rows, separate products and sums. One thread
// makes one output pixel from four source pixels, which it makes 8-bit BGR (kernels/pixels.h) as it reads
// them; bound by memory.
#include "box_math.h"
#include "kernels.h"
#include "launch.h"
#include "pixels.h"
#include "storage.h"

namespace frcnn::cuda {
namespace {

struct Resize {
  int src_height, src_width, height, width;
  std::int64_t row_bytes, image_bytes;
  double inverse;
  double mean[3];
};

struct Sample {
  int first, second;
  float weight;
};

__device__ Sample sample(int d, double inverse) {
  const float f = static_cast<float>(__dadd_rn(__dmul_rn(d + 0.5, inverse), -0.5));
  const float whole = floorf(f);
  return {static_cast<int>(whole), static_cast<int>(whole) + 1, ieee::sub(f, whole)};
}

__device__ float mix(float a, float b, float weight) {
  return ieee::add(ieee::mul(a, ieee::sub(1.0f, weight)), ieee::mul(b, weight));
}

template <class T, PixelFormat format>
__global__ void __launch_bounds__(256)
    preprocess_kernel(const std::uint8_t* images, T* dst, Resize r, std::int64_t n) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
    const int x = static_cast<int>(i % r.width), y = static_cast<int>(i / r.width % r.height);
    const std::uint8_t* const image = images + i / r.width / r.height * r.image_bytes;
    Sample column = sample(x, r.inverse);
    // Beyond the first and the last column the weight falls away together with the index.
    if (column.first < 0) column = {0, 0, 0.0f};
    if (column.first >= r.src_width - 1) column = {r.src_width - 1, r.src_width - 1, 0.0f};
    const Sample row = sample(y, r.inverse);
    const auto at = [&](int sy, int sx) {
      return bgr_at<format>(image + sy * r.row_bytes, image + (r.src_height + sy / 2) * r.row_bytes, sx);
    };
    const int top = min(max(row.first, 0), r.src_height - 1),
              bottom = min(max(row.second, 0), r.src_height - 1);
    const Bgr top_first = at(top, column.first), top_second = at(top, column.second);
    const Bgr bottom_first = at(bottom, column.first), bottom_second = at(bottom, column.second);
    for (int c = 0; c < 3; ++c) {
      const auto value = [&](const Bgr& pixel) {
        return static_cast<float>(__dsub_rn(pixel.level[c], r.mean[c]));
      };
      const float above = mix(value(top_first), value(top_second), column.weight);
      const float below = mix(value(bottom_first), value(bottom_second), column.weight);
      dst[i * 3 + c] = from_float<T>(mix(above, below, row.weight));
    }
  }
}

template <class T, PixelFormat format>
void run(const KernelArgs& args, const Resize& resize, std::int64_t n) {
  if (n == 0) return;
  launch(preprocess_kernel<T, format>, blocks_for(n, 256), dim3(256), 0,
         static_cast<cudaStream_t>(args.stream), args.in[0].as<const std::uint8_t>(), args.out[0].as<T>(),
         resize, n);
}

}  // namespace

Prepared prepare(const Preprocess& op, const KernelSpec& spec, const Settings&) {
  const Frames f = frames_of(op, spec.in[0].shape);
  const Shape& d = spec.out[0].shape;
  const Resize resize{static_cast<int>(f.height),
                      static_cast<int>(f.width),
                      static_cast<int>(d[1]),
                      static_cast<int>(d[2]),
                      f.row_bytes,
                      f.image_bytes,
                      1.0 / op.scale,
                      {op.mean_bgr[0], op.mean_bgr[1], op.mean_bgr[2]}};
  Prepared prepared;
  prepared.implementation = "preprocess";
  with_storage(spec.out[0].dtype, "preprocess", [&](auto stored) {
    using T = typename decltype(stored)::type;
    void (*runs[])(const KernelArgs&, const Resize&, std::int64_t) = {
        run<T, PixelFormat::bgr>, run<T, PixelFormat::rgb>, run<T, PixelFormat::nv12>};
    prepared.run = [resize, n = d[0] * d[1] * d[2], run = runs[static_cast<int>(op.format)]](
                       const KernelArgs& args) { run(args, resize, n); };
  });
  return prepared;
}

}  // namespace frcnn::cuda
