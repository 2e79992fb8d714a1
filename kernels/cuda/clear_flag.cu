// A flag in device memory set to zero by one thread, in the stream's order. Bound by the launch.
#include "clear_flag.h"

#include "launch.h"

namespace frcnn::cuda {
namespace {

__global__ void clear_flag_kernel(int* flag) { *flag = 0; }

}  // namespace

void clear_flag(int* flag, cudaStream_t stream) {
  launch(clear_flag_kernel, dim3(1), dim3(1), 0, stream, flag);
}

const void* clear_flag_function() { return reinterpret_cast<const void*>(clear_flag_kernel); }

}  // namespace frcnn::cuda
