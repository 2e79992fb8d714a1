// Convolution over the published O,I,H,W weights: an implicit GEMM, or the kernel for first layers.
#include "f32_only.h"
#include "first_conv.h"
#include "implicit_gemm.h"
#include "storage.h"

namespace frcnn::cuda {

Prepared prepare(const Conv2d& op, const KernelSpec& spec, const Settings& settings) {
  require_f32_operands(op.operands, "conv2d");
  const Shape &s = spec.in[0].shape, &w = spec.in[1].shape;
  ImplicitGemm gemm;
  gemm.batch = checked_int("conv2d", s[0]);
  gemm.height = checked_int("conv2d", s[1]);
  gemm.width = checked_int("conv2d", s[2]);
  gemm.channels = checked_int("conv2d", s[3]);
  gemm.kernel_h = checked_int("conv2d", w[2]);
  gemm.kernel_w = checked_int("conv2d", w[3]);
  gemm.stride = op.stride;
  gemm.pad_h = gemm.pad_w = op.pad;
  gemm.out_height = (gemm.height + 2 * op.pad - gemm.kernel_h) / op.stride + 1;
  gemm.out_width = (gemm.width + 2 * op.pad - gemm.kernel_w) / op.stride + 1;
  gemm.outputs = checked_int("conv2d", w[0]);
  gemm.epilogue = op.epilogue;
  PublishedLayout published;
  published.output.stride = w.row();
  published.channel.stride = w[2] * w[3];
  const auto first = choose_first_conv(gemm, spec.in[0].dtype, settings);
  gemm.dense = first.has_value();
  Prepared prepared = prepare_implicit_gemm(gemm, spec, settings, published, "");
  if (first) use_first_conv(gemm, spec, settings, *first, prepared);
  return prepared;
}

}  // namespace frcnn::cuda
