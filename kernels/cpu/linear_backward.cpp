// Gradients of fully connected layers through oneDNN's inner product.
#include <string>

#include "cpu/gradients.h"
#include "cpu/onednn.h"
#include "frcnn/error.h"
#include "kernels.h"

namespace frcnn::cpu {

namespace {

using dnnl::memory;
using Tag = memory::format_tag;

// As in linear.cpp: the weight's published C,H,W columns are OIHW for a rank-4 source, which is read as
// H,W,C.
struct Problem {
  onednn::ConvolutionMemory memory;
  memory::desc published;
};

Problem problem_of(const Shape& s, const Shape& w) {
  const memory::desc bias = onednn::f32({w[0]}, Tag::a), dst = onednn::f32({s[0], w[0]}, Tag::ab);
  if (s.rank == 4) {
    const memory::dims weight{w[0], s[3], s[1], s[2]};
    return {{onednn::f32({s[0], s[3], s[1], s[2]}, Tag::nhwc), onednn::f32(weight, Tag::any), bias, dst},
            onednn::f32(weight, Tag::oihw)};
  }
  const memory::dims weight{w[0], w[1]};
  return {{onednn::f32({s[0], s[1]}, Tag::ab), onednn::f32(weight, Tag::any), bias, dst},
          onednn::f32(weight, Tag::ab)};
}

}  // namespace

Prepared prepare(const LinearBackwardData&, const KernelSpec& spec, const Settings& settings) {
  const std::string name =
      "linear_backward_data of " + to_string(spec.out[0].shape) + " with " + to_string(spec.in[1].shape);
  if (spec.out[0].shape.elements() == 0) return {"plain", 0, {}, [](const KernelArgs&) {}};
  return onednn::translated(name, [&] {
    const onednn::ThreadScope scope(settings.threads);
    const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    const Problem problem = problem_of(spec.out[0].shape, spec.in[1].shape);
    const auto pd = onednn::inner_product_backward_data(engine, problem.memory);
    if (!pd) throw Error(ErrorCode::unsupported, name + ": oneDNN has no implementation");
    return data_gradient(pd, dnnl::inner_product_backward_data(pd), problem.memory, problem.published, engine,
                         settings.threads);
  });
}

Prepared prepare(const LinearBackwardWeight& op, const KernelSpec& spec, const Settings& settings) {
  const std::string name =
      "linear_backward_weight of " + to_string(spec.in[0].shape) + " with " + to_string(spec.out[0].shape);
  if (spec.in[0].shape.elements() == 0) return zero_gradient(op.accumulate);
  return onednn::translated(name, [&] {
    const onednn::ThreadScope scope(settings.threads);
    const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    const Problem problem = problem_of(spec.in[0].shape, spec.out[0].shape);
    const auto pd = onednn::inner_product_backward_weights(engine, problem.memory);
    if (!pd) throw Error(ErrorCode::unsupported, name + ": oneDNN has no implementation");
    return weight_gradient(pd, dnnl::inner_product_backward_weights(pd), problem.memory, problem.published,
                           op.accumulate, engine, settings.threads);
  });
}

}  // namespace frcnn::cpu
