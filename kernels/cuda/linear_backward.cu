// Gradients of the fully connected layer: with respect to the source an implicit GEMM over maps of one cell,
// with the weight turned round as it is packed; with respect to weight and bias as of a 1x1 convolution of a
// map of one row.
#include <algorithm>

#include "f32_only.h"
#include "implicit_gemm.h"
#include "weight_gradient.h"

namespace frcnn::cuda {

Prepared prepare(const LinearBackwardData&, const KernelSpec& spec, const Settings& settings) {
  require_f32(spec, "linear_backward_data");
  const Shape &s = spec.out[0].shape, &w = spec.in[1].shape;
  const std::int64_t channels = s.rank == 4 ? s[3] : s.row(), cells = s.rank == 4 ? s[1] * s[2] : 1;
  ImplicitGemm gemm;
  gemm.batch = static_cast<int>(s[0]);
  gemm.channels = static_cast<int>(w[0]);
  gemm.outputs = static_cast<int>(w[1]);
  PublishedLayout published;
  published.output = {static_cast<int>(channels), cells, 1};
  published.channel.stride = w[1];
  return prepare_implicit_gemm(gemm, spec, for_gradients(settings), published,
                               ":turned:cells" + std::to_string(cells));
}

Prepared prepare(const LinearBackwardWeight& op, const KernelSpec& spec, const Settings& settings) {
  require_f32(spec, "linear_backward_weight");
  const Shape &s = spec.in[0].shape, &d = spec.in[1].shape;
  WeightGradient gradient;
  gradient.width = gradient.out_width = static_cast<int>(std::max<std::int64_t>(s[0], 1));
  gradient.channels = static_cast<int>(s.row());
  gradient.outputs = static_cast<int>(d[1]);
  gradient.inner = static_cast<int>(s.rank == 4 ? s[3] : s.row());
  gradient.accumulate = op.accumulate;
  return prepare_weight_gradient(gradient, spec, settings);
}

}  // namespace frcnn::cuda
