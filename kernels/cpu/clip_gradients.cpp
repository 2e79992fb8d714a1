// Norms of all gradients and the factor that limits them. Squares are summed in blocks of fixed size, and
// those sums once more, both in the order of kernels/lane_sum.h, so that the result depends on neither
// threads nor device.
#include <algorithm>
#include <cmath>
#include <limits>

#include "carve.h"
#include "cpu/multiversion.h"
#include "cpu/parallel.h"
#include "kernels.h"
#include "lane_sum.h"

namespace frcnn::cpu {

namespace {

constexpr std::int64_t block_size = 1 << 15;

FRCNN_MULTIVERSION double sum_of_squares(const float* x, std::int64_t n) {
  double lane[sum_lanes] = {};
  std::int64_t i = 0;
  for (; i + sum_lanes <= n; i += sum_lanes)
    for (int k = 0; k < sum_lanes; ++k) lane[k] += static_cast<double>(x[i + k]) * x[i + k];
  for (int k = 0; i + k < n; ++k) lane[k] += static_cast<double>(x[i + k]) * x[i + k];
  return add_halves(lane);
}

}  // namespace

Prepared prepare(const ClipGradients& op, const KernelSpec& spec, const Settings& settings) {
  std::int64_t most = 1;
  for (const TensorSpec& gradient : spec.in)
    most = std::max(most, (gradient.shape.elements() + block_size - 1) / block_size);
  Carver carver;
  carver.take<double>(most);
  Prepared prepared;
  prepared.implementation = "plain";
  prepared.workspace_bytes = carver.used();
  prepared.run = [op, most, threads = settings.threads](const KernelArgs& args) {
    double* blocks = Carver(args.workspace).take<double>(most);
    float* norms = args.out[1].as<float>();
    double total = 0;
    for (std::size_t i = 0; i < args.in.size(); ++i) {
      const float* x = args.in[i].as<const float>();
      const std::int64_t n = args.in[i].shape.elements(), count = (n + block_size - 1) / block_size;
      parallel_for(count, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t b = begin; b < end; ++b)
          blocks[b] = sum_of_squares(x + b * block_size, std::min(block_size, n - b * block_size));
      });
      LaneSum all;
      for (std::int64_t b = 0; b < count; ++b) all.add(b, blocks[b]);
      const double sum = all.total();
      norms[i] = static_cast<float>(std::sqrt(sum) * op.scale);
      total += sum;
    }
    const double norm = std::sqrt(total) * op.scale;
    norms[args.in.size()] = static_cast<float>(norm);
    float factor = op.max_norm > 0 && norm > op.max_norm ? static_cast<float>(op.max_norm / norm) : 1.0f;
    if (!std::isfinite(norms[args.in.size()])) factor = std::numeric_limits<float>::quiet_NaN();
    *args.out[0].as<float>() = factor;
  };
  return prepared;
}

}  // namespace frcnn::cpu
