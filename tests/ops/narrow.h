// Tensors stored in 16 bits.
#pragma once

#include <vector>

#include "graph/dtype.h"
#include "ops/op_runner.h"

namespace frcnn::test {

// `tensor` (f32) stored as `dtype`, each number rounded to the nearest.
inline Tensor stored_as(const Tensor& tensor, DType dtype) {
  Tensor narrow({tensor.spec.shape, dtype});
  from_f32(tensor.as<float>().data(), tensor.as<float>().size(), dtype, narrow.bytes.data());
  return narrow;
}

inline Tensor stored_as(Shape shape, const std::vector<float>& values, DType dtype) {
  return stored_as(f32(shape, values), dtype);
}

// The same numbers as f32.
inline Tensor widened(const Tensor& tensor) {
  Tensor wide({tensor.spec.shape, DType::f32});
  to_f32(tensor.bytes.data(), tensor.spec.dtype, wide.as<float>().size(), wide.as<float>().data());
  return wide;
}

inline bool same_values(const Tensor& a, const Tensor& b) { return same_numbers(widened(a), widened(b)); }

// Apart from the matrix products every kernel computes in fp32 from what it reads and rounds once where it
// stores, so its plain implementation is the CPU's fp32 kernel between a widening and a rounding, and the
// bits are the same. in[0] is the map, stored as `dtype`; the other inputs stay as they are.
template <class O>
void check_stored(const O& op, std::vector<Tensor> in, DType dtype) {
  INFO("stored as " << name_of(dtype));
  in[0] = stored_as(in[0], dtype);
  std::vector<Tensor> wide = in;
  wide[0] = widened(in[0]);
  std::vector<TensorSpec> wide_specs;
  for (const Tensor& tensor : wide) wide_specs.push_back(tensor.spec);
  std::vector<TensorSpec> out = infer(op, wide_specs, "test");
  const Tensor exact =
      run_once(cpu::prepare(op, KernelSpec{wide_specs, out}, cpu::Settings{}), wide, out, 0xFF)[0];
  out[0].dtype = dtype;
  const Tensor got = run_op(op, in, out)[0];
  CHECK(same_values(got, stored_as(exact, dtype)));
}

}  // namespace frcnn::test
