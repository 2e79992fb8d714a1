// Greedy suppression of sorted boxes by one block: what nms.cu does once per image and select_detections.cu
// once per class.
#pragma once

#include "box_math.h"
#include "device.h"
#include "graph/ops.h"

namespace frcnn::cuda {

struct SuppressRule {
  float threshold;
  Suppress rule;

  __device__ bool operator()(const Box& kept, const Box& box) const {
    const float overlap = iou(kept, box);
    return rule == Suppress::above ? overlap > threshold : overlap >= threshold;
  }
};

// Survivors of box_at(0..count) in order, at most max_out: kept[] gets their boxes, kept_index[] their
// numbers; returns how many. Called by all threads of the block; all get the result and see both arrays.
//
// `chunk` candidates at a time meet the survivors so far, all threads in parallel; overlaps within the chunk
// become bits; then one warp, each lane holding 32 of the chunk's candidates, walks from survivor to
// survivor. Serial work is one step per survivor. Shared memory: chunk * (16 + chunk / 8) bytes.
template <int chunk, class BoxAt>
__device__ int suppress_sorted(const BoxAt& box_at, int count, const SuppressRule& falls, int max_out,
                               Box* kept, int* kept_index) {
  static_assert(chunk % 32 == 0 && chunk <= 1024, "one word of 32 candidates per lane");
  constexpr int words = chunk / 32;
  __shared__ Box box[chunk];
  __shared__ unsigned alive[words];
  __shared__ unsigned overlaps[chunk * words];
  __shared__ int survivors;
  const int thread = threadIdx.x, threads = blockDim.x;
  if (thread == 0) survivors = 0;
  int so_far = 0;
  for (int first = 0; first < count && so_far < max_out; first += chunk) {
    const int n = min(chunk, count - first);
    for (int i = thread; i < n; i += threads) box[i] = box_at(first + i);
    for (int w = thread; w < words; w += threads) alive[w] = 0;
    __syncthreads();
    for (int i = thread; i < n; i += threads) {
      bool stays = true;
      for (int k = 0; k < so_far && stays; ++k) stays = !falls(kept[k], box[i]);
      if (stays) atomicOr(&alive[i / 32], 1u << (i % 32));
    }
    for (int t = thread; t < n * words; t += threads) {
      const int i = t / words, j0 = t % words * 32;
      unsigned bits = 0;
      for (int b = 0; b < 32; ++b)
        if (j0 + b > i && j0 + b < n && falls(box[i], box[j0 + b])) bits |= 1u << b;
      overlaps[t] = bits;
    }
    __syncthreads();
    if (thread < 32) {
      unsigned mine = thread < words ? alive[thread] : 0;
      int next = so_far;
      while (next < max_out) {
        const unsigned lanes = __ballot_sync(0xFFFFFFFFu, mine != 0);
        if (lanes == 0) break;
        const int word = __ffs(static_cast<int>(lanes)) - 1;
        const int bit = __ffs(static_cast<int>(__shfl_sync(0xFFFFFFFFu, mine, word))) - 1,
                  i = word * 32 + bit;
        if (thread == 0) {
          kept[next] = box[i];
          kept_index[next] = first + i;
        }
        ++next;
        if (thread == word) mine &= ~(1u << bit);
        if (thread < words) mine &= ~overlaps[i * words + thread];
      }
      if (thread == 0) survivors = next;
    }
    __syncthreads();
    so_far = survivors;
    __syncthreads();  // everybody has read before the next chunk writes
  }
  return so_far;
}

}  // namespace frcnn::cuda
