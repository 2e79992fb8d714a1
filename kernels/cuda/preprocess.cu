// Images to network input, bit for bit as SPEC section 1 states it: the sampling position in double, rounded
// to float32; mean subtracted in double; columns first, then rows, separate products and sums. One thread
// makes one output pixel from four source pixels, which it makes 8-bit BGR (kernels/pixels.h) as it reads
// them; one row of blocks an image, whose record its threads read first. Bound by memory.
#include "box_math.h"
#include "kernels.h"
#include "launch.h"
#include "pixels.h"
#include "storage.h"

namespace frcnn::cuda {
namespace {

struct Blob {
  int height, width;
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

__device__ Bgr pixel(const SourceImage& image, std::uint64_t base, int y, int x) {
  if (image.format == PixelFormat::nv12) return bgr_of<PixelFormat::nv12>(image, base, y, x);
  if (image.format == PixelFormat::rgb) return bgr_of<PixelFormat::rgb>(image, base, y, x);
  return bgr_of<PixelFormat::bgr>(image, base, y, x);
}

template <class T>
__global__ void __launch_bounds__(256)
    preprocess_kernel(const SourceImage* images, const std::uint8_t* pixels, T* dst,
                      __grid_constant__ const Blob blob) {
  const SourceImage image = images[blockIdx.y];
  const auto base = reinterpret_cast<std::uint64_t>(pixels);
  const int n = blob.height * blob.width;
  T* const out = dst + std::int64_t{blockIdx.y} * n * 3;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    const int x = i % blob.width, y = i / blob.width;
    if (x >= image.out_width || y >= image.out_height) {
      for (int c = 0; c < 3; ++c) out[std::int64_t{i} * 3 + c] = from_float<T>(0.0f);
      continue;
    }
    Sample column = sample(x, image.inverse_scale);
    // Beyond the first and the last column the weight falls away together with the index.
    if (column.first < 0) column = {0, 0, 0.0f};
    if (column.first >= image.width - 1) column = {image.width - 1, image.width - 1, 0.0f};
    const Sample row = sample(y, image.inverse_scale);
    const int top = min(max(row.first, 0), image.height - 1),
              bottom = min(max(row.second, 0), image.height - 1);
    const Bgr top_first = pixel(image, base, top, column.first),
              top_second = pixel(image, base, top, column.second),
              bottom_first = pixel(image, base, bottom, column.first),
              bottom_second = pixel(image, base, bottom, column.second);
    for (int c = 0; c < 3; ++c) {
      const auto value = [&](const Bgr& bgr) {
        return static_cast<float>(__dsub_rn(bgr.level[c], blob.mean[c]));
      };
      const float above = mix(value(top_first), value(top_second), column.weight);
      const float below = mix(value(bottom_first), value(bottom_second), column.weight);
      out[std::int64_t{i} * 3 + c] = from_float<T>(mix(above, below, row.weight));
    }
  }
}

}  // namespace

Prepared prepare(const Preprocess& op, const KernelSpec& spec, const Settings&) {
  const std::int64_t n = op.height * op.width;
  // The threads' counters go one grid beyond the last pixel.
  checked_int("preprocess", n + (std::int64_t{1} << 24));
  const dim3 grid = checked_grid("preprocess", blocks_for(n, 256).x, spec.out[0].shape[0]);
  const Blob blob{static_cast<int>(op.height),
                  static_cast<int>(op.width),
                  {op.mean_bgr[0], op.mean_bgr[1], op.mean_bgr[2]}};
  Prepared prepared;
  prepared.implementation = "preprocess";
  with_storage(spec.out[0].dtype, "preprocess", [&](auto stored) {
    using T = typename decltype(stored)::type;
    prepared.run = [blob, grid](const KernelArgs& args) {
      if (grid.y == 0) return;
      launch(preprocess_kernel<T>, grid, dim3(256), 0, static_cast<cudaStream_t>(args.stream),
             args.in[0].as<const SourceImage>(),
             args.in.size() > 1 ? args.in[1].as<const std::uint8_t>() : nullptr, args.out[0].as<T>(), blob);
    };
  });
  return prepared;
}

}  // namespace frcnn::cuda
