// Gradients of the convolution through oneDNN, NHWC in and out. Always the direct algorithm: Winograd's error
// would come on top of the forward pass's.
#include <string>

#include "cpu/gradients.h"
#include "cpu/onednn.h"
#include "frcnn/error.h"
#include "kernels.h"

namespace frcnn::cpu {

namespace {

using dnnl::memory;
using Tag = memory::format_tag;

struct Problem {
  onednn::ConvolutionMemory stored, multiplied;
  memory::desc published;  // the weight
  memory::dims strides, padding;
  std::string name;
};

Problem problem_of(const char* what, const Shape& src, const Shape& weight, const Shape& dst, int stride,
                   int pad, DType operands) {
  const memory::dims s{src[0], src[3], src[1], src[2]}, w{weight[0], weight[1], weight[2], weight[3]},
      d{dst[0], dst[3], dst[1], dst[2]};
  const auto in = [&](DType type) {
    return onednn::ConvolutionMemory{onednn::of(type, s, Tag::nhwc), onednn::of(type, w, Tag::any),
                                     onednn::f32({weight[0]}, Tag::a), onednn::of(type, d, Tag::nhwc)};
  };
  return {in(DType::f32),
          in(operands),
          onednn::f32(w, Tag::oihw),
          {stride, stride},
          {pad, pad},
          std::string(what) + " of " + to_string(src) + " with " + to_string(weight) + ", stride " +
              std::to_string(stride) + ", pad " + std::to_string(pad)};
}

}  // namespace

Prepared prepare(const Conv2dBackwardData& op, const KernelSpec& spec, const Settings& settings) {
  const Problem p = problem_of("conv2d_backward_data", spec.out[0].shape, spec.in[1].shape, spec.in[0].shape,
                               op.stride, op.pad, op.operands);
  return onednn::translated(p.name, [&] {
    const onednn::ThreadScope scope(settings.threads);
    const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    const auto pd =
        onednn::convolution_backward_data(engine, p.multiplied, p.stored.src, p.strides, p.padding);
    if (!pd) throw Error(ErrorCode::unsupported, p.name + ": oneDNN has no implementation");
    return data_gradient(pd, dnnl::convolution_backward_data(pd), p.stored, p.published, engine,
                         settings.threads);
  });
}

Prepared prepare(const Conv2dBackwardWeight& op, const KernelSpec& spec, const Settings& settings) {
  const Problem p = problem_of("conv2d_backward_weight", spec.in[0].shape, spec.out[0].shape,
                               spec.in[1].shape, op.stride, op.pad, op.operands);
  if (spec.in[0].shape.elements() == 0) return zero_gradient(op.accumulate);
  return onednn::translated(p.name, [&] {
    const onednn::ThreadScope scope(settings.threads);
    const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    const auto pd =
        onednn::convolution_backward_weights(engine, p.multiplied, p.stored.weight, p.strides, p.padding);
    if (!pd) throw Error(ErrorCode::unsupported, p.name + ": oneDNN has no implementation");
    return weight_gradient(pd, dnnl::convolution_backward_weights(pd), p.stored, p.published, op.accumulate,
                           engine, settings.threads);
  });
}

}  // namespace frcnn::cpu
