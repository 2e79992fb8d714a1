// Greedy suppression of the sorted candidates of each image, one block per image (suppress.h). Stops at
// max_out survivors. Bound by latency: the candidates looked at times the survivors so far, spread over one
// block.
#include "kernels.h"
#include "launch.h"
#include "storage.h"
#include "suppress.h"

#include <string>

namespace frcnn::cuda {
namespace {

constexpr int kThreads = 512, kChunk = 512;

struct Roi {
  float image;
  Box box;
};

__global__ void __launch_bounds__(kThreads)
    nms_kernel(const Box* boxes, const float* scores, const int* count, Box* kept, int* kept_index, Roi* rois,
               float* roi_scores, int* roi_count, SuppressRule rule, int entries, int max_out) {
  const std::int64_t image = blockIdx.x;
  const Box* const mine = boxes + image * entries;
  Box* const survivors = kept + image * max_out;
  int* const index = kept_index + image * max_out;
  const int n = suppress_sorted<kChunk>([&](int i) { return mine[i]; }, min(max(count[image], 0), entries),
                                        rule, max_out, survivors, index);
  for (int i = threadIdx.x; i < max_out; i += blockDim.x) {
    rois[image * max_out + i] = {static_cast<float>(image), i < n ? survivors[i] : Box{0, 0, 0, 0}};
    roi_scores[image * max_out + i] = i < n ? scores[image * entries + index[i]] : 0.0f;
  }
  if (threadIdx.x == 0) roi_count[image] = n;
}

}  // namespace

Prepared prepare(const Nms& op, const KernelSpec& spec, const Settings&) {
  const unsigned images = checked_grid("nms", spec.in[1].shape[0]).x;
  const int entries = checked_int("nms", spec.in[1].shape[1]), max_out = checked_int("nms", op.max_out);
  const std::size_t rows = static_cast<std::size_t>(images) * static_cast<std::size_t>(max_out);
  Prepared prepared;
  prepared.implementation = "nms:" + std::to_string(kChunk);
  prepared.workspace_bytes = rows * (sizeof(Box) + sizeof(int));
  prepared.run = [=, rule = SuppressRule{op.threshold, op.suppress}](const KernelArgs& args) {
    if (images == 0) return;
    auto* const kept = static_cast<Box*>(args.workspace);
    launch(nms_kernel, dim3(images), dim3(kThreads), 0, static_cast<cudaStream_t>(args.stream),
           args.in[0].as<const Box>(), args.in[1].as<const float>(), args.in[2].as<const int>(), kept,
           reinterpret_cast<int*>(kept + rows), args.out[0].as<Roi>(), args.out[1].as<float>(),
           args.out[2].as<int>(), rule, entries, max_out);
  };
  return prepared;
}

}  // namespace frcnn::cuda
