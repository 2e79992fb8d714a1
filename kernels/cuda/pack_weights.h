// Weights as the implicit GEMM reads them: a row for each output, k running along it, zeros in the padding.
#pragma once

#include <string>

#include "implicit_gemm.h"

namespace frcnn::cuda {

// Row o holds the channels of tap t from t * tap_columns on.
struct PackedWeights {
  PublishedLayout published;
  int outputs = 0, taps = 0, channels = 0;
  int rows = 0, columns = 0;  // with the padding
  int tap_columns = 0;        // at least `channels`
};

// Packs input `input`, published in f32, for kernels that read it stored as `stored`; on the host, and on the
// device for weights that are being trained. `layout` names everything above but `outputs` and `rows`.
WeightPacking weight_packing(int input, const PackedWeights& weights, DType stored,
                             const std::string& layout);

}  // namespace frcnn::cuda
