// What several ops start with, and what the device asks whether there is code for it.
#pragma once

#include "device.h"

namespace frcnn::cuda {

// Queues `*flag = 0`, in device memory. Throws as launch() does.
void clear_flag(int* flag, cudaStream_t stream);

// The kernel of clear_flag(), for cudaFuncGetAttributes: every kernel is compiled for the same GPUs as this one.
const void* clear_flag_function();

}  // namespace frcnn::cuda
