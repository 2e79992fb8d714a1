// Training keeps maps, gradients and weights in f32; narrower storage is for inference.
#pragma once

#include <string>

#include "frcnn/error.h"
#include "kernels.h"

namespace frcnn::cuda {

// Throws Error(unsupported) naming `op` where a map is stored in another floating type.
inline void require_f32(const KernelSpec& spec, const char* op) {
  const auto check = [&](std::span<const TensorSpec> tensors) {
    for (const TensorSpec& tensor : tensors)
      if (tensor.dtype == DType::f16 || tensor.dtype == DType::bf16)
        throw Error(ErrorCode::unsupported, std::string(op) +
                                                ": training keeps maps and gradients in f32, not " +
                                                std::string(name_of(tensor.dtype)));
  };
  check(spec.in);
  check(spec.out);
}

// Throws Error(unsupported) naming `op` for an op that rounds its operands to something else: on this device
// the precision says what products are made of.
inline void require_f32_operands(DType operands, const char* op) {
  if (operands != DType::f32)
    throw Error(ErrorCode::unsupported,
                std::string(op) + ": f32 maps are not multiplied in " + std::string(name_of(operands)));
}

}  // namespace frcnn::cuda
