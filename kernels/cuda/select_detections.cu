// Score threshold, suppression within each class, and the cap per image (SPEC section 7, steps 3 and 4), the
// CPU's bits.
//
// The first kernel, one block per class and image, ranks the candidates above the threshold by counting and
// suppresses among them as suppress.h does. The second, one block per image, finds the score of the last
// detection that counts in four passes of 256 bins over the survivors' keys; then every class's survivors,
// which are sorted already, keep a prefix.
//
// Bound by latency: 300 candidates and a handful of survivors per class.
#include "box_math.h"
#include "clear_flag.h"
#include "kernels.h"
#include "launch.h"
#include "score_order.h"
#include "storage.h"
#include "suppress.h"

#include <string>

namespace frcnn::cuda {
namespace {

constexpr int kThreads = 256, kChunk = 256;

struct Sizes {
  int per_image, classes, box_classes, capacity;  // box_classes 1: one box for every class
};

// The workspace, per image and foreground class, `per_image` of each array; counts one per image and class.
struct Workspace {
  std::uint64_t* keys;  // candidates as found, then ranked in `sorted`
  std::uint64_t* sorted;
  Box* kept;
  int* kept_index;  // place among the sorted candidates
  float* kept_score;
  int* kept_count;
  int* first_row;  // of the class's detections in the output

  template <class T>
  static T* take(std::byte*& at, std::size_t n) {
    T* const taken = reinterpret_cast<T*>(at);
    at += (n * sizeof(T) + 15) / 16 * 16;
    return taken;
  }
  Workspace(void* memory, std::size_t images, std::size_t lists, std::size_t rows, std::size_t& bytes) {
    std::byte* at = static_cast<std::byte*>(memory);
    const std::size_t n = images * lists * rows;
    keys = take<std::uint64_t>(at, n);
    sorted = take<std::uint64_t>(at, n);
    kept = take<Box>(at, n);
    kept_index = take<int>(at, n);
    kept_score = take<float>(at, n);
    kept_count = take<int>(at, images * lists);
    first_row = take<int>(at, images * lists);
    bytes = static_cast<std::size_t>(at - static_cast<std::byte*>(memory));
  }
};

struct Detection {
  float label, score;
  Box box;
};

__global__ void __launch_bounds__(kThreads)
    suppress_classes_kernel(const float* prob, const Box* boxes, const int* count, int* nonfinite,
                            Workspace w, Sizes s, float score_threshold, SuppressRule rule) {
  __shared__ int candidates;
  const int label = blockIdx.x + 1, thread = threadIdx.x;
  const std::int64_t image = blockIdx.y, list = image * (s.classes - 1) + blockIdx.x;
  const int valid = min(max(count[image], 0), s.per_image);
  const float* const scores = prob + image * s.per_image * s.classes;
  const Box* const mine = boxes + image * s.per_image * s.box_classes;
  std::uint64_t* const keys = w.keys + list * s.per_image;
  std::uint64_t* const sorted = w.sorted + list * s.per_image;
  if (thread == 0) candidates = 0;
  __syncthreads();
  for (int r = thread; r < valid; r += blockDim.x) {
    const float score = scores[std::int64_t{r} * s.classes + label];
    const Box box = mine[std::int64_t{r} * s.box_classes + (s.box_classes == 1 ? 0 : label)];
    bool finite =
        is_finite(score) && is_finite(box.x1) && is_finite(box.y1) && is_finite(box.x2) && is_finite(box.y2);
    if (label == 1) {  // the background's column is looked at here
      const Box other = mine[std::int64_t{r} * s.box_classes];
      finite = finite && is_finite(scores[std::int64_t{r} * s.classes]) && is_finite(other.x1) &&
               is_finite(other.y1) && is_finite(other.x2) && is_finite(other.y2);
    }
    if (!finite) atomicOr(nonfinite, 1);
    if (score > score_threshold)
      keys[atomicAdd(&candidates, 1)] = rank_key(score, static_cast<std::uint32_t>(r));
  }
  __syncthreads();
  const int n = candidates;
  for (int i = thread; i < n; i += blockDim.x) {
    int rank = 0;
    for (int k = 0; k < n; ++k) rank += keys[k] < keys[i];
    sorted[rank] = keys[i];
  }
  __syncthreads();
  Box* const kept = w.kept + list * s.per_image;
  int* const kept_index = w.kept_index + list * s.per_image;
  const auto box_at = [&](int i) {
    return mine[std::int64_t{index_of(sorted[i])} * s.box_classes + (s.box_classes == 1 ? 0 : label)];
  };
  const int survivors = suppress_sorted<kChunk>(box_at, n, rule, s.per_image, kept, kept_index);
  for (int i = thread; i < survivors; i += blockDim.x)
    w.kept_score[list * s.per_image + i] =
        scores[std::int64_t{index_of(sorted[kept_index[i]])} * s.classes + label];
  if (thread == 0) w.kept_count[list] = survivors;
}

// The leading part of a key: scores in descending order, as an integer.
__device__ std::uint32_t score_key(float score) {
  return static_cast<std::uint32_t>(rank_key(score, 0) >> 32);
}

// The key of the survivor number `limit` (from 1) in descending score, of all classes of an image; `above`
// gets how many survivors have a smaller key. There are at least `limit`.
__device__ std::uint32_t key_at(const Workspace& w, const Sizes& s, std::int64_t first_list, int limit,
                                int* histogram, int* found, int& above) {
  std::uint32_t prefix = 0, known = 0;
  above = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int b = threadIdx.x; b < 256; b += blockDim.x) histogram[b] = 0;
    __syncthreads();
    for (int c = 0; c < s.classes - 1; ++c) {
      const std::int64_t list = first_list + c;
      for (int i = threadIdx.x; i < w.kept_count[list]; i += blockDim.x) {
        const std::uint32_t key = score_key(w.kept_score[list * s.per_image + i]);
        if ((key & known) == prefix) atomicAdd(&histogram[key >> shift & 255u], 1);
      }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int bin = 0, before = above;
      while (before + histogram[bin] < limit) before += histogram[bin++];
      found[0] = bin;
      found[1] = before;
    }
    __syncthreads();
    prefix |= static_cast<std::uint32_t>(found[0]) << shift;
    known |= 255u << shift;
    above = found[1];
    __syncthreads();
  }
  return prefix;
}

__global__ void __launch_bounds__(kThreads)
    cap_detections_kernel(Workspace w, Detection* detections, int* count, Sizes s, int max_detections,
                          int keep_ties) {
  __shared__ int histogram[256];
  __shared__ int found[2];
  __shared__ int total, rows;
  const std::int64_t image = blockIdx.x, first_list = image * (s.classes - 1);
  if (threadIdx.x == 0) {
    total = 0;
    for (int c = 0; c < s.classes - 1; ++c) total += w.kept_count[first_list + c];
  }
  __syncthreads();
  const bool capped = max_detections > 0 && max_detections < total;
  std::uint32_t last_key = 0xFFFFFFFFu;
  int above = 0;
  if (capped) last_key = key_at(w, s, first_list, max_detections, histogram, found, above);
  // A class keeps its survivors up to the last key; of those that equal it, as many as are still wanted.
  if (threadIdx.x == 0) {
    int row = 0, equal = capped && !keep_ties ? max_detections - above : total;
    for (int c = 0; c < s.classes - 1; ++c) {
      const std::int64_t list = first_list + c;
      const float* const scores = w.kept_score + list * s.per_image;
      int kept = 0;
      for (int i = 0; i < w.kept_count[list]; ++i) {
        const std::uint32_t key = score_key(scores[i]);
        if (key > last_key || (key == last_key && capped && equal-- <= 0)) break;
        ++kept;
      }
      w.first_row[list] = row;
      w.kept_count[list] = kept;
      row += kept;
    }
    rows = row;
    count[image] = row;
  }
  __syncthreads();
  Detection* const out = detections + image * s.capacity;
  for (int c = 0; c < s.classes - 1; ++c) {
    const std::int64_t list = first_list + c;
    for (int i = threadIdx.x; i < w.kept_count[list]; i += blockDim.x)
      out[w.first_row[list] + i] = {static_cast<float>(c + 1), w.kept_score[list * s.per_image + i],
                                    w.kept[list * s.per_image + i]};
  }
  for (int i = rows + threadIdx.x; i < s.capacity; i += blockDim.x) out[i] = {0, 0, {0, 0, 0, 0}};
}

}  // namespace

Prepared prepare(const SelectDetections& op, const KernelSpec& spec, const Settings&) {
  const std::int64_t images = spec.in[2].shape[0];
  Sizes s{};
  s.per_image = checked_int("select_detections", spec.in[0].shape[0] / images);
  s.classes = checked_int("select_detections", spec.in[0].shape[1]);
  s.box_classes = static_cast<int>(spec.in[1].shape[1] / 4);
  s.capacity = checked_int("select_detections", spec.out[0].shape[1]);
  const auto lists = static_cast<std::size_t>(s.classes - 1), rows = static_cast<std::size_t>(s.per_image);
  Prepared prepared;
  prepared.implementation = "select_detections";
  const dim3 grid = checked_grid("select_detections", s.classes - 1, images);
  const Workspace sized(nullptr, grid.y, lists, rows, prepared.workspace_bytes);
  prepared.run = [op, s, grid, lists, rows](const KernelArgs& args) {
    const auto stream = static_cast<cudaStream_t>(args.stream);
    std::size_t bytes = 0;
    const Workspace w(args.workspace, grid.y, lists, rows, bytes);
    clear_flag(args.out[2].as<int>(), stream);
    launch(suppress_classes_kernel, grid, dim3(kThreads), 0, stream, args.in[0].as<const float>(),
           args.in[1].as<const Box>(), args.in[2].as<const int>(), args.out[2].as<int>(), w, s,
           op.score_threshold, SuppressRule{op.nms_threshold, op.suppress});
    const auto limit = static_cast<int>(op.max_detections < s.capacity ? op.max_detections : s.capacity);
    launch(cap_detections_kernel, dim3(grid.y), dim3(kThreads), 0, stream, w, args.out[0].as<Detection>(),
           args.out[1].as<int>(), s, limit, op.keep_ties ? 1 : 0);
  };
  return prepared;
}

}  // namespace frcnn::cuda
