// The k best candidates of each image, in the one order of scores (kernels/score_order.h). Five small
// launches, none of which the host waits for. Histogram, counters and output rows are cleared. A histogram of
// the leading bits of the keys is counted, with integer atomics: any order gives the same counts. Per image,
// the first bin is found at which k candidates are reached. Candidates up to that bin are gathered, in
// whatever order they come. Each of these counts the keys below its own and writes itself at that place: keys
// are distinct, so the result does not depend on the order in which they were gathered.
//
// Ranking takes (candidates)^2 comparisons, a little more than k^2 unless most scores share a bin; it bounds
// the whole.
#include "box_math.h"
#include "kernels.h"
#include "launch.h"
#include "score_order.h"
#include "storage.h"

#include <limits>
#include <string>

namespace frcnn::cuda {
namespace {

constexpr int kBins = 4096, kThreads = 256, kTile = 1024;

// Per image in the workspace.
struct Selection {
  int histogram[kBins];
  int last_bin;  // bins up to this one are gathered
  int gathered;
};

struct Sizes {
  int entries, capacity;
};

// Keys of positive scores fill the lower half; all others share the last bin.
__device__ int bin_of(std::uint64_t key) { return min(static_cast<int>(key >> 51), kBins - 1); }

__global__ void __launch_bounds__(kThreads)
    top_k_clear_kernel(Selection* selections, Box* boxes, float* scores, Sizes s) {
  Selection& mine = selections[blockIdx.y];
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < kBins) mine.histogram[i] = 0;
  if (i == 0) mine.gathered = 0;
  for (int row = i; row < s.capacity; row += gridDim.x * blockDim.x) {
    boxes[std::int64_t{blockIdx.y} * s.capacity + row] = {0, 0, 0, 0};
    scores[std::int64_t{blockIdx.y} * s.capacity + row] = 0;
  }
}

__global__ void __launch_bounds__(kThreads)
    top_k_count_kernel(const float* scores, Selection* selections, Sizes s) {
  const float* const mine = scores + std::int64_t{blockIdx.y} * s.entries;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < s.entries; i += gridDim.x * blockDim.x)
    if (takes_part(mine[i])) atomicAdd(&selections[blockIdx.y].histogram[bin_of(rank_key(mine[i], 0))], 1);
}

// One block per image: 16 bins a thread, their sums scanned in shared memory.
__global__ void __launch_bounds__(kThreads) top_k_cut_kernel(Selection* selections, int* count, Sizes s) {
  constexpr int each = kBins / kThreads;
  __shared__ int sums[kThreads];
  Selection& mine = selections[blockIdx.x];
  const int thread = threadIdx.x;
  int own = 0;
  for (int b = 0; b < each; ++b) own += mine.histogram[thread * each + b];
  sums[thread] = own;
  __syncthreads();
  for (int step = 1; step < kThreads; step *= 2) {
    const int left = thread >= step ? sums[thread - step] : 0;
    __syncthreads();
    sums[thread] += left;
    __syncthreads();
  }
  const int total = sums[kThreads - 1], before = sums[thread] - own;
  if (thread == 0) {
    count[blockIdx.x] = min(total, s.capacity);
    if (total < s.capacity || total == 0) mine.last_bin = kBins - 1;
  }
  if (before >= s.capacity || sums[thread] < s.capacity) return;
  int reached = before;  // the bin at which `capacity` is reached is one of this thread's
  for (int b = 0; b < each; ++b) {
    reached += mine.histogram[thread * each + b];
    if (reached >= s.capacity) {
      mine.last_bin = thread * each + b;
      return;
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    top_k_gather_kernel(const float* scores, Selection* selections, std::uint64_t* keys, Sizes s) {
  const float* const mine = scores + std::int64_t{blockIdx.y} * s.entries;
  Selection& selection = selections[blockIdx.y];
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < s.entries; i += gridDim.x * blockDim.x) {
    if (!takes_part(mine[i])) continue;
    const std::uint64_t key = rank_key(mine[i], static_cast<std::uint32_t>(i));
    if (bin_of(key) > selection.last_bin) continue;
    keys[std::int64_t{blockIdx.y} * s.entries + atomicAdd(&selection.gathered, 1)] = key;
  }
}

__global__ void __launch_bounds__(kThreads)
    top_k_rank_kernel(const Box* boxes, const float* scores, const Selection* selections,
                      const std::uint64_t* keys, Box* out_boxes, float* out_scores, Sizes s) {
  __shared__ std::uint64_t tile[kTile];
  const int gathered = selections[blockIdx.y].gathered, i = blockIdx.x * blockDim.x + threadIdx.x;
  const std::uint64_t* const mine = keys + std::int64_t{blockIdx.y} * s.entries;
  if (static_cast<int>(blockIdx.x * blockDim.x) >= gathered) return;  // the whole block
  const std::uint64_t key = i < gathered ? mine[i] : 0;
  int rank = 0;
  for (int first = 0; first < gathered; first += kTile) {
    const int n = min(kTile, gathered - first);
    for (int k = threadIdx.x; k < n; k += blockDim.x) tile[k] = mine[first + k];
    __syncthreads();
    for (int k = 0; k < n; ++k) rank += tile[k] < key;
    __syncthreads();
  }
  if (i >= gathered || rank >= s.capacity) return;
  const std::int64_t from = std::int64_t{blockIdx.y} * s.entries + index_of(key);
  const std::int64_t to = std::int64_t{blockIdx.y} * s.capacity + rank;
  out_boxes[to] = boxes[from];
  out_scores[to] = scores[from];
}

}  // namespace

Prepared prepare(const TopK&, const KernelSpec& spec, const Settings&) {
  const std::int64_t batch = spec.in[1].shape[0], entries = spec.in[1].shape[1],
                     capacity = spec.out[1].shape[1];
  if (entries > std::numeric_limits<std::int32_t>::max() / 2 || batch > 65535)
    throw Error(ErrorCode::unsupported, "top_k: " + std::to_string(batch) + " images of " +
                                            std::to_string(entries) +
                                            " candidates are more than this kernel takes");
  const Sizes s{static_cast<int>(entries), static_cast<int>(capacity)};
  const std::size_t keys_bytes = static_cast<std::size_t>(batch * entries) * sizeof(std::uint64_t);
  Prepared prepared;
  prepared.implementation = "top_k:histogram";
  prepared.workspace_bytes = keys_bytes + static_cast<std::size_t>(batch) * sizeof(Selection);
  prepared.run = [s, keys_bytes, images = static_cast<unsigned>(batch)](const KernelArgs& args) {
    if (images == 0) return;
    const auto stream = static_cast<cudaStream_t>(args.stream);
    auto* const keys = static_cast<std::uint64_t*>(args.workspace);
    auto* const selections =
        reinterpret_cast<Selection*>(static_cast<std::byte*>(args.workspace) + keys_bytes);
    const auto* boxes = args.in[0].as<const Box>();
    const auto* scores = args.in[1].as<const float>();
    const dim3 over_entries(blocks_for(s.entries, kThreads, 4096).x, images), block(kThreads);
    launch(top_k_clear_kernel, dim3(kBins / kThreads, images), block, 0, stream, selections,
           args.out[0].as<Box>(), args.out[1].as<float>(), s);
    launch(top_k_count_kernel, over_entries, block, 0, stream, scores, selections, s);
    launch(top_k_cut_kernel, dim3(images), block, 0, stream, selections, args.out[2].as<int>(), s);
    launch(top_k_gather_kernel, over_entries, block, 0, stream, scores, selections, keys, s);
    if (s.entries > 0)
      launch(top_k_rank_kernel, dim3(static_cast<unsigned>((s.entries + kThreads - 1) / kThreads), images),
             block, 0, stream, boxes, scores, selections, keys, args.out[0].as<Box>(),
             args.out[1].as<float>(), s);
  };
  return prepared;
}

}  // namespace frcnn::cuda
