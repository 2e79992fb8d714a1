// The one place that includes CUDA: the runtime and its half types where there is a toolkit (nvcc, or a host
// compiler for code that only calls the runtime), or the emulator of tests/simt, which runs kernels without a
// GPU.
#pragma once

#if defined(FRCNN_SIMT)
#include "tests/simt/emulator.h"
#include "tests/simt/fake_runtime.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif
