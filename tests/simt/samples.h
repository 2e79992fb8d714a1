// Two small kernels of the kinds the product has, for the tests of the emulator.
#pragma once

#include "device.h"

namespace frcnn::simt_test {

// c[m][n] = a[m][k] * b[n][k] transposed, fp32 accumulation; k is a multiple of 8.
void sample_gemm(const half* a, const half* b, float* c, int m, int n, int k, cudaStream_t stream);
void sample_gemm(const nv_bfloat16* a, const nv_bfloat16* b, float* c, int m, int n, int k,
                 cudaStream_t stream);

// *sum = all of x, added in an order that does not depend on anything but n: every block writes a partial,
// the last one to finish adds them up. `partial` has `blocks` floats, `*counter` starts at 0 and is 0 again
// afterwards.
void sample_sum(const float* x, int n, int blocks, float* partial, unsigned* counter, float* sum,
                cudaStream_t stream);

// x[i] becomes the sum of x[0..i] over n = blocks * 64 integers, by blocks that wait for the block before
// them; `ready` has one zero for each block.
void sample_scan(int* x, int blocks, unsigned* ready, cudaStream_t stream);

}  // namespace frcnn::simt_test
