// Fully connected layer: an implicit GEMM over maps of one cell. A rank-4 source lies as H,W,C while the
// published columns are C,H,W; the packing moves them.
#include "implicit_gemm.h"

#include <string>

#include "storage.h"

namespace frcnn::cuda {

Prepared prepare(const Linear& op, const KernelSpec& spec, const Settings& settings) {
  const Shape& s = spec.in[0].shape;
  const std::int64_t channels = s.rank == 4 ? s[3] : s.row(), cells = s.rank == 4 ? s[1] * s[2] : 1;
  ImplicitGemm gemm;
  gemm.batch = checked_int("linear", s[0]);
  gemm.channels = checked_int("linear", s.row());
  gemm.outputs = checked_int("linear", spec.in[1].shape[0]);
  gemm.epilogue = op.epilogue;
  PublishedLayout published;
  published.output.stride = s.row();
  published.channel = {static_cast<int>(channels), cells, 1};
  // The same weight for a source of one cell lies in another order.
  return prepare_implicit_gemm(gemm, spec, settings, published, ":cells" + std::to_string(cells));
}

}  // namespace frcnn::cuda
