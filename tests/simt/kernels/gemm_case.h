// One convolution as the implicit GEMM kernel runs it, with tile, splits and arithmetic given instead of
// chosen.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "first_conv.h"
#include "implicit_gemm.h"
#include "ops/narrow.h"
#include "reference/conv2d.h"

namespace frcnn::test {

struct Arithmetic {
  const char* name;  // of the class in kernels/cuda/mma.h
  DType stored;
  Precision precision;
};
inline constexpr std::array<Arithmetic, 5> arithmetics{{{"Fp32", DType::f32, Precision::fp32},
                                                        {"Tf32x3", DType::f32, Precision::tf32x3},
                                                        {"Tf32", DType::f32, Precision::tf32},
                                                        {"Fp16", DType::f16, Precision::fp16},
                                                        {"Bf16", DType::bf16, Precision::bf16}}};

struct GemmCase {
  Shape src, weight;
  Conv2d op;
  DType dst = DType::f32;
};

inline Shape conv_shape(const GemmCase& c) {
  const Conv2d& op = c.op;
  return {c.src[0], (c.src[1] + 2 * op.pad - c.weight[2]) / op.stride + 1,
          (c.src[2] + 2 * op.pad - c.weight[3]) / op.stride + 1, c.weight[0]};
}

inline Shape stored_shape(const GemmCase& c) {
  const Shape conv = conv_shape(c);
  if (!c.op.epilogue.max_pool_2x2) return conv;
  return {conv[0], (conv[1] + 1) / 2, (conv[2] + 1) / 2, conv[3]};
}

inline std::string text(const GemmCase& c) {
  const Epilogue& e = c.op.epilogue;
  return "gemm " + to_string(c.src) + " with " + to_string(c.weight) + ", stride " +
         std::to_string(c.op.stride) + ", pad " + std::to_string(c.op.pad) + (e.relu ? ", relu" : "") +
         ", scale " + std::to_string(e.scale) + (e.max_pool_2x2 ? ", pooled" : "") + ", to " +
         std::string(name_of(c.dst));
}

inline cuda::ImplicitGemm gemm_of(const GemmCase& c) {
  const Shape conv = conv_shape(c);
  cuda::ImplicitGemm gemm;
  gemm.batch = static_cast<int>(c.src[0]);
  gemm.height = static_cast<int>(c.src[1]);
  gemm.width = static_cast<int>(c.src[2]);
  gemm.channels = static_cast<int>(c.src[3]);
  gemm.kernel_h = static_cast<int>(c.weight[2]);
  gemm.kernel_w = static_cast<int>(c.weight[3]);
  gemm.stride = c.op.stride;
  gemm.pad_h = gemm.pad_w = c.op.pad;
  gemm.out_height = static_cast<int>(conv[1]);
  gemm.out_width = static_cast<int>(conv[2]);
  gemm.outputs = static_cast<int>(conv[3]);
  gemm.epilogue = c.op.epilogue;
  return gemm;
}

// `first`: the kernel for first layers instead, with this choice. `dense`: k as that one has it.
inline Prepared prepare_gemm(const GemmCase& c, const Arithmetic& arithmetic, const cuda::GemmChoice& choice,
                             const cuda::FirstConvChoice* first = nullptr, bool dense = false) {
  cuda::ImplicitGemm gemm = gemm_of(c);
  gemm.dense = first != nullptr || dense;
  const std::vector<TensorSpec> in{{c.src, arithmetic.stored}, {c.weight}, {{c.weight[0]}}};
  const std::vector<TensorSpec> out{{stored_shape(c), c.dst}};
  cuda::Settings settings;
  settings.precision = arithmetic.precision;
  cuda::PublishedLayout published;
  published.output.stride = c.weight.row();
  published.channel.stride = c.weight[2] * c.weight[3];
  Prepared prepared =
      cuda::prepare_implicit_gemm(gemm, KernelSpec{in, out}, settings, published, "", &choice);
  if (first) cuda::use_first_conv(gemm, KernelSpec{in, out}, settings, *first, prepared);
  return prepared;
}

// In thread order number `order` alone, or in several from there on.
inline Tensor run_gemm(const GemmCase& c, const Prepared& prepared, const std::vector<Tensor>& in,
                       std::size_t order, std::size_t orders = 1) {
  return run_orders(prepared, in, {{stored_shape(c), c.dst}}, order, orders)[0];
}

// The reference's convolution, pooled where the case says so; every step in T.
template <class T>
std::vector<T> plain_gemm(const GemmCase& c, const Tensor& src, const Tensor& weight, const Tensor& bias) {
  const std::vector<T> conv =
      reference::conv2d<T>(c.op, c.src, src.as<float>(), c.weight, weight.as<float>(), bias.as<float>());
  if (!c.op.epilogue.max_pool_2x2) return conv;
  const Shape s = conv_shape(c), d = stored_shape(c);
  std::vector<T> pooled;
  for (std::int64_t n = 0; n < d[0]; ++n)
    for (std::int64_t y = 0; y < d[1]; ++y)
      for (std::int64_t x = 0; x < d[2]; ++x)
        for (std::int64_t o = 0; o < d[3]; ++o) {
          T best = -std::numeric_limits<float>::max();
          for (std::int64_t sy = 2 * y; sy < std::min(2 * y + 2, s[1]); ++sy)
            for (std::int64_t sx = 2 * x; sx < std::min(2 * x + 2, s[2]); ++sx)
              best = std::max(best, conv[static_cast<std::size_t>(((n * s[1] + sy) * s[2] + sx) * s[3] + o)]);
          pooled.push_back(best);
        }
  return pooled;
}

}  // namespace frcnn::test
