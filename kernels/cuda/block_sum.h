// A sum in the order of kernels/lane_sum.h, by one block of sum_lanes threads.
#pragma once

#include "device.h"
#include "lane_sum.h"

namespace frcnn::cuda {

// The sum of every thread's `own`, known to all threads, all of which call this. `lanes` is shared memory for
// sum_lanes numbers, free for another use after the next barrier.
__device__ __forceinline__ double add_lanes(double own, double* lanes) {
  const int thread = threadIdx.x;
  lanes[thread] = own;
  __syncthreads();
  for (int half = sum_lanes / 2; half > 0; half /= 2) {
    if (thread < half) lanes[thread] = __dadd_rn(lanes[thread], lanes[thread + half]);
    __syncthreads();
  }
  return lanes[0];
}

// The sum of items[0..n), known to all threads.
__device__ __forceinline__ double sum_items(const double* items, std::int64_t n, double* lanes) {
  double own = 0;
  for (std::int64_t i = threadIdx.x; i < n; i += sum_lanes) own = __dadd_rn(own, items[i]);
  return add_lanes(own, lanes);
}

}  // namespace frcnn::cuda
