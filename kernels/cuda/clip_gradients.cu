// Norms of all gradients and the factor that limits them, in the CPU's order of sums (kernels/lane_sum.h):
//   squares  one block sums 32768 elements of one gradient; up to 64 gradients a launch, as a parameter
//   norms    one block a gradient adds its blocks' sums
//   factor   one thread adds the gradients
// Bound by reading the gradients.
#include <algorithm>
#include <cmath>
#include <vector>

#include "block_sum.h"
#include "f32_only.h"
#include "launch.h"

namespace frcnn::cuda {
namespace {

constexpr std::int64_t kBlock = 1 << 15;
constexpr int kGroup = 64;

struct Gradient {
  const float* data;
  std::int64_t elements;
  std::int64_t first_block;  // among all gradients'
};

struct Group {
  Gradient gradient[kGroup];
  int count;
  int first;  // among all gradients
};

__host__ __device__ std::int64_t blocks_of(std::int64_t elements) { return (elements + kBlock - 1) / kBlock; }

// blockIdx.x counts the blocks of the whole group.
__global__ void __launch_bounds__(sum_lanes)
    clip_squares_kernel(__grid_constant__ const Group group, double* sums) {
  __shared__ double lanes[sum_lanes];
  const std::int64_t block = group.gradient[0].first_block + blockIdx.x;
  int g = 0;
  while (g + 1 < group.count && group.gradient[g + 1].first_block <= block) ++g;
  const float* const data = group.gradient[g].data;
  const std::int64_t begin = (block - group.gradient[g].first_block) * kBlock;
  const std::int64_t end = min(begin + kBlock, group.gradient[g].elements);
  double own = 0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += sum_lanes)
    own = __dadd_rn(own, __dmul_rn(static_cast<double>(data[i]), static_cast<double>(data[i])));
  const double sum = add_lanes(own, lanes);
  if (threadIdx.x == 0) sums[block] = sum;
}

__global__ void __launch_bounds__(sum_lanes)
    clip_norms_kernel(__grid_constant__ const Group group, const double* sums, double* totals, float* norms,
                      double scale) {
  __shared__ double lanes[sum_lanes];
  const Gradient& mine = group.gradient[blockIdx.x];
  const double sum = sum_items(sums + mine.first_block, blocks_of(mine.elements), lanes);
  if (threadIdx.x != 0) return;
  totals[group.first + blockIdx.x] = sum;
  norms[group.first + blockIdx.x] = static_cast<float>(__dmul_rn(__dsqrt_rn(sum), scale));
}

__global__ void clip_factor_kernel(const double* totals, int count, float* factor, float* norms,
                                   double max_norm, double scale) {
  double total = 0;
  for (int g = 0; g < count; ++g) total = __dadd_rn(total, totals[g]);
  const double norm = __dmul_rn(__dsqrt_rn(total), scale);
  const float stored = static_cast<float>(norm);
  norms[count] = stored;
  float f = max_norm > 0 && norm > max_norm ? static_cast<float>(__ddiv_rn(max_norm, norm)) : 1.0f;
  if (!(stored - stored == 0.0f)) f = stored - stored;  // infinite or NaN: NaN
  *factor = f;
}

}  // namespace

Prepared prepare(const ClipGradients& op, const KernelSpec& spec, const Settings&) {
  require_f32(spec, "clip_gradients");
  std::vector<Group> groups;
  std::vector<std::int64_t> group_blocks;
  std::int64_t blocks = 0;
  const auto count = static_cast<int>(spec.in.size());
  for (int i = 0; i < count; ++i) {
    if (i % kGroup == 0) {
      groups.push_back({{}, 0, i});
      group_blocks.push_back(0);
    }
    const std::int64_t elements = spec.in[static_cast<std::size_t>(i)].shape.elements();
    groups.back().gradient[groups.back().count++] = {nullptr, elements, blocks};
    group_blocks.back() += blocks_of(elements);
    blocks += blocks_of(elements);
  }
  Prepared prepared;
  prepared.implementation = "clip_gradients";
  prepared.workspace_bytes = static_cast<std::size_t>(blocks + count) * sizeof(double);
  prepared.run = [op, groups, group_blocks, blocks, count](const KernelArgs& args) {
    const auto stream = static_cast<cudaStream_t>(args.stream);
    auto* const sums = static_cast<double*>(args.workspace);
    double* const totals = sums + blocks;
    float* const norms = args.out[1].as<float>();
    for (std::size_t k = 0; k < groups.size(); ++k) {
      Group group = groups[k];
      for (int i = 0; i < group.count; ++i)
        group.gradient[i].data = args.in[static_cast<std::size_t>(group.first + i)].as<const float>();
      if (group_blocks[k] > 0)
        launch(clip_squares_kernel, dim3(static_cast<unsigned>(group_blocks[k])), dim3(sum_lanes), 0, stream,
               group, sums);
      launch(clip_norms_kernel, dim3(static_cast<unsigned>(group.count)), dim3(sum_lanes), 0, stream, group,
             sums, totals, norms, op.scale);
    }
    launch(clip_factor_kernel, dim3(1), dim3(1), 0, stream, totals, count, args.out[0].as<float>(), norms,
           op.max_norm, op.scale);
  };
  return prepared;
}

}  // namespace frcnn::cuda
