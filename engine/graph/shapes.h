// Shape and type inference: one rule per op.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "graph/ops.h"
#include "graph/tensor.h"

namespace frcnn {

// The outputs that `op` makes of `in`. Throws Error(bad_model) whose message starts with `layer` when the inputs
// do not fit ("conv3_1: weight has 128 input channels, its source 64").
std::vector<TensorSpec> infer(const Op& op, std::span<const TensorSpec> in, std::string_view layer);

// Output size of one dimension of a convolution; 0 where the kernel does not fit.
std::int64_t convolved_size(std::int64_t in, std::int64_t kernel, std::int64_t stride, std::int64_t pad);

// Output size of one pooled dimension by Caffe's rule (see MaxPool); 0 where no window fits.
std::int64_t pooled_size(std::int64_t in, const MaxPool& pool);

// Multiply-adds times two, for tables of FLOPs; 0 for ops that do none worth counting.
double flops(const Op& op, std::span<const TensorSpec> in, std::span<const TensorSpec> out);

}  // namespace frcnn
