// Convolutions and fully connected layers as one matrix product: rows are output pixels, columns output
// channels, k runs over the filter's taps and the input's channels. The matrix of input patches is never
// formed; each block gathers what it needs.
#pragma once

#include "choose.h"
#include "graph/ops.h"
#include "kernels.h"

namespace frcnn::cuda {

// A fully connected layer is a 1x1 convolution of maps of one cell.
struct ImplicitGemm {
  int batch = 1, height = 1, width = 1, channels = 1;  // source
  int kernel_h = 1, kernel_w = 1, stride = 1, pad = 0;
  int out_height = 1, out_width = 1, outputs = 1;  // of the convolution, before any pooling
  Epilogue epilogue;
  bool dense = false;  // pack weights without gaps between the taps, whatever the number of channels
};

// in: source, weight, bias. `published_index(o, tap, c)` is the place of a weight in the published tensor.
// `choice` overrides choose_gemm(), for tests. Storage of source and destination comes from the spec; f32
// sources are multiplied as settings.precision says.
using PublishedIndex = std::function<std::int64_t(std::int64_t o, std::int64_t tap, std::int64_t c)>;
Prepared prepare_implicit_gemm(const ImplicitGemm& gemm, const KernelSpec& spec, const Settings& settings,
                               const PublishedIndex& published_index, const GemmChoice* choice = nullptr);

}  // namespace frcnn::cuda
