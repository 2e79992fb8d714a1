// (src - offset) * factor inside a border of (0 - offset) * factor. One thread, one value of the result;
// bound by memory.
#include "box_math.h"
#include "f32_only.h"
#include "launch.h"
#include "storage.h"

namespace frcnn::cuda {
namespace {

struct Border {
  int height, width, pad;  // of one source map
  float offset[3], factor;
};

__global__ void __launch_bounds__(256)
    input_units_kernel(const float* src, float* dst, Border b, std::int64_t n) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
    const int c = static_cast<int>(i % 3), out_width = b.width + 2 * b.pad, out_height = b.height + 2 * b.pad;
    const std::int64_t cell = i / 3;
    const int x = static_cast<int>(cell % out_width) - b.pad;
    const int y = static_cast<int>(cell / out_width % out_height) - b.pad;
    const std::int64_t image = cell / out_width / out_height;
    const bool inside = x >= 0 && x < b.width && y >= 0 && y < b.height;
    const float v = inside ? src[((image * b.height + y) * b.width + x) * 3 + c] : 0.0f;
    const float offset = c == 0 ? b.offset[0] : c == 1 ? b.offset[1] : b.offset[2];
    dst[i] = ieee::mul(ieee::sub(v, offset), b.factor);
  }
}

}  // namespace

Prepared prepare(const InputUnits& op, const KernelSpec& spec, const Settings&) {
  require_f32(spec, "input_units");
  const Shape& s = spec.in[0].shape;
  const Border border{static_cast<int>(s[1]),
                      static_cast<int>(s[2]),
                      op.pad,
                      {op.offset[0], op.offset[1], op.offset[2]},
                      op.factor};
  Prepared prepared;
  prepared.implementation = "input_units";
  prepared.run = [border, n = spec.out[0].shape.elements()](const KernelArgs& args) {
    if (n == 0) return;
    launch(input_units_kernel, blocks_for(n, 256), dim3(256), 0, static_cast<cudaStream_t>(args.stream),
           args.in[0].as<const float>(), args.out[0].as<float>(), border, n);
  };
  return prepared;
}

}  // namespace frcnn::cuda
