// Convolutions and fully connected layers as one matrix product: rows are output pixels, columns output
// channels, k runs over the filter's taps and the input's channels. The matrix of input patches is never
// formed; each block gathers what it needs.
#pragma once

#include <string>

#include "box_math.h"
#include "choose.h"
#include "graph/ops.h"
#include "kernels.h"

namespace frcnn::cuda {

// A fully connected layer is a 1x1 convolution of maps of one cell. A gradient with respect to the source is
// a convolution too: of the result's gradient with the mirrored filter, its cells `spread` apart with zeros
// between.
struct ImplicitGemm {
  int batch = 1, height = 1, width = 1, channels = 1;  // source
  int spread = 1;                                      // of the source's cells
  int kernel_h = 1, kernel_w = 1, stride = 1;
  int pad_h = 0, pad_w = 0;                        // may be negative
  int out_height = 1, out_width = 1, outputs = 1;  // of the convolution, before any pooling
  Epilogue epilogue;
  bool dense = false;  // pack weights without gaps between the taps, whatever the number of channels
};

// One direction of a published weight: place i lies at (i % inner) * stride + (i / inner) * outer_stride.
struct PublishedAxis {
  int inner = 0x7FFFFFFF;
  std::int64_t stride = 1, outer_stride = 0;
  FRCNN_HD std::int64_t at(int i) const { return i % inner * stride + i / inner * outer_stride; }
};

// Where the weight of (output, tap, channel) of the product lies in the published tensor.
struct PublishedLayout {
  PublishedAxis output, channel;
  std::int64_t first = 0, tap_stride = 1;
  FRCNN_HD std::int64_t index(int o, int tap, int c) const {
    return first + output.at(o) + tap * tap_stride + channel.at(c);
  }
};

// in: source, weight and, or nothing, a bias. The layout of the packed weight is named after the shape and
// `layout_name`, which tells different `published` of one shape apart. `choice` overrides choose_gemm(), for
// tests. Storage of source and destination comes from the spec; f32 sources are multiplied as
// settings.precision says.
Prepared prepare_implicit_gemm(const ImplicitGemm& gemm, const KernelSpec& spec, const Settings& settings,
                               const PublishedLayout& published, const std::string& layout_name,
                               const GemmChoice* choice = nullptr);

}  // namespace frcnn::cuda
