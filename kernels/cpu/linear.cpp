// Fully connected layers through oneDNN's inner product.
#include <memory>
#include <string>

#include "cpu/onednn.h"
#include "frcnn/error.h"
#include "kernels.h"

namespace frcnn::cpu {

namespace {

using dnnl::memory;
using Tag = memory::format_tag;

// What oneDNN shall see. The weight is published with C,H,W columns, which is OIHW for the rank-4 source; the
// primitive reads the source as H,W,C, so packing moves the columns.
struct Problem {
  onednn::ConvolutionMemory memory;
  memory::desc published, stored;  // the weight in the file; the source in the arena
};

Problem problem_of(const KernelSpec& spec, const std::string& name) {
  const Shape &s = spec.in[0].shape, &w = spec.in[1].shape;
  const DType stored = spec.in[0].dtype, type = onednn::multiplied_in(stored, spec.out[0].dtype, name);
  const memory::desc bias = onednn::f32({w[0]}, Tag::a);
  const memory::desc dst = onednn::of(spec.out[0].dtype, {s[0], w[0]}, Tag::ab);
  if (s.rank == 4) {
    const memory::dims src{s[0], s[3], s[1], s[2]}, weight{w[0], s[3], s[1], s[2]};
    return {{onednn::of(type, src, Tag::nhwc), onednn::of(type, weight, Tag::any), bias, dst},
            onednn::f32(weight, Tag::oihw),
            onednn::of(stored, src, Tag::nhwc)};
  }
  const memory::dims src{s[0], s[1]}, weight{w[0], w[1]};
  return {{onednn::of(type, src, Tag::ab), onednn::of(type, weight, Tag::any), bias, dst},
          onednn::f32(weight, Tag::ab),
          onednn::of(stored, src, Tag::ab)};
}

}  // namespace

Prepared prepare(const Linear& op, const KernelSpec& spec, const Settings& settings) {
  const std::string name =
      "linear of " + to_string(spec.in[0].shape) + " with " + to_string(spec.in[1].shape);
  if (op.epilogue.max_pool_2x2)
    throw Error(ErrorCode::unsupported, name + ": a fully connected layer has no map to pool (max_pool_2x2)");
  if (spec.out[0].shape.elements() == 0) return {"plain", 0, {}, [](const KernelArgs&) {}};
  return onednn::translated(name, [&] {
    const onednn::ThreadScope scope(settings.threads);
    const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    const Problem problem = problem_of(spec, name);
    const auto pd = onednn::inner_product(engine, problem.memory, op);
    if (!pd) throw Error(ErrorCode::unsupported, name + ": oneDNN has no implementation");
    auto source = std::make_shared<onednn::Source>(engine, problem.stored, pd.src_desc());
    auto call = std::make_shared<onednn::Call>(
        engine, dnnl::inner_product_forward(pd),
        std::vector<std::pair<int, memory::desc>>{{DNNL_ARG_SRC, pd.src_desc()},
                                                  {DNNL_ARG_WEIGHTS, pd.weights_desc()},
                                                  {DNNL_ARG_BIAS, pd.bias_desc()},
                                                  {DNNL_ARG_DST, pd.dst_desc()},
                                                  {DNNL_ARG_SCRATCHPAD, pd.scratchpad_desc()}});
    Prepared prepared;
    prepared.implementation = pd.impl_info_str();
    const std::size_t scratch_at = source->workspace_bytes();
    prepared.workspace_bytes = scratch_at + pd.scratchpad_desc().get_size();
    prepared.packings.push_back(onednn::packing(1, problem.published, pd.weights_desc(), settings.threads));
    prepared.run = [source, call, scratch_at, threads = settings.threads](const KernelArgs& args) {
      const onednn::ThreadScope running(threads);
      call->bind(0, source->convert(args.in[0].data, args.workspace));
      call->bind(1, args.in[1].data);
      call->bind(2, args.in[2].data);
      call->bind(3, args.out[0].data);
      call->bind(4, static_cast<std::byte*>(args.workspace) + scratch_at);
      call->execute();
    };
    return prepared;
  });
}

}  // namespace frcnn::cpu
