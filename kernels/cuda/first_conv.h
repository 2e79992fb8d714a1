// First layers: convolutions of at most first_conv_most_channels channels, which a gather of 16 bytes of
// channels cannot serve.
#pragma once

#include <optional>

#include "choose.h"
#include "implicit_gemm.h"
#include "kernels.h"

namespace frcnn::cuda {

// The choice for this convolution, or none where the implicit GEMM has to do it: too many channels, or a
// filter or stride whose patches do not fit into shared memory.
std::optional<FirstConvChoice> choose_first_conv(const ImplicitGemm& conv, DType stored,
                                                 const Settings& settings);

// Makes `prepared`, which prepare_implicit_gemm() made of the same with conv.dense set, run the kernel for
// first layers instead: the packed weights are the same.
void use_first_conv(const ImplicitGemm& conv, const KernelSpec& spec, const Settings& settings,
                    const FirstConvChoice& choice, Prepared& prepared);

}  // namespace frcnn::cuda
