// Gradients of weights and biases as one matrix product: rows are output channels, columns the filter's taps
// and the source's channels, k runs over the output pixels of all images.
#pragma once

#include "choose.h"
#include "kernels.h"

namespace frcnn::cuda {

struct WeightGradient {
  int batch = 1, height = 1, width = 1, channels = 1;  // source
  int kernel_h = 1, kernel_w = 1, stride = 1, pad = 0;
  int out_height = 1, out_width = 1, outputs = 1;
  // Column n of an output's row is published at n % inner * (columns / inner) + n / inner.
  int inner = 1;
  bool accumulate = false;
};

// in: source, d_dst.  out: d_weight, d_bias. `choice` overrides choose_gemm(), for tests.
Prepared prepare_weight_gradient(const WeightGradient& gradient, const KernelSpec& spec,
                                 const Settings& settings, const GemmChoice* choice = nullptr);

// How a program of this precision multiplies gradients, which are stored in f32: in 16-bit programs as tf32.
inline Settings for_gradients(Settings settings) {
  if (storage_of(settings.precision) != DType::f32) settings.precision = Precision::tf32;
  return settings;
}

}  // namespace frcnn::cuda
