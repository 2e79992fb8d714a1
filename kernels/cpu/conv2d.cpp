// Convolution: oneDNN's direct form, or a Winograd form where that is faster and as accurate: in fp32
// oneDNN's F(4x4,3x3), in bf16 our F(2x2,3x3).
//
// Source and destination are plain NHWC for the direct form and ours. oneDNN 2.x's Winograd takes only maps
// blocked by 16 channels, so that form reorders its source and its result, which costs 2-15 % of what it
// saves.
#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "cpu/carve.h"
#include "cpu/onednn.h"
#include "cpu/winograd_bf16.h"
#include "frcnn/error.h"
#include "kernels.h"

namespace frcnn::cpu {

namespace {

using dnnl::memory;
using Tag = memory::format_tag;
using PrimitiveDesc = dnnl::convolution_forward::primitive_desc;

struct Problem {
  Conv2d op;
  memory::dims src, weight, bias, dst;  // in oneDNN's order N,C,H,W and O,I,H,W
  DType src_type, dst_type;
  std::string name;  // for messages
};

Problem problem_of(const Conv2d& op, const KernelSpec& spec) {
  const Shape &s = spec.in[0].shape, &w = spec.in[1].shape, &d = spec.out[0].shape;
  Problem problem{op,
                  {s[0], s[3], s[1], s[2]},
                  {w[0], w[1], w[2], w[3]},
                  {w[0]},
                  {d[0], d[3], d[1], d[2]},
                  spec.in[0].dtype,
                  spec.out[0].dtype,
                  {}};
  problem.name = "conv2d of " + to_string(s) + " with " + to_string(w) + ", stride " +
                 std::to_string(op.stride) + ", pad " + std::to_string(op.pad);
  return problem;
}

// By shape only, so that equal requests always take equal paths. Measured (docs/numerics.md): below 256 input
// channels its error is more than twice the direct form's, on small maps it is slower.
bool winograd_pays(const Problem& p) {
  const auto tiles = [](std::int64_t size) { return (size + 3) / 4; };
  return p.op.operands == DType::f32 && p.src_type == DType::f32 && p.dst_type == DType::f32 &&
         p.weight[2] == 3 && p.weight[3] == 3 && p.op.stride == 1 && p.op.pad == 1 && p.weight[1] >= 256 &&
         p.weight[1] % 16 == 0 && p.weight[0] % 16 == 0 && p.dst[0] * tiles(p.dst[2]) * tiles(p.dst[3]) >= 96;
}

struct Direct {
  onednn::Source source;
  onednn::Call call;
  int threads;
};

Prepared direct(const Problem& p, const dnnl::engine& engine, int threads) {
  const DType type =
      p.op.operands == DType::f32 ? onednn::multiplied_in(p.src_type, p.dst_type, p.name) : p.op.operands;
  const PrimitiveDesc pd =
      onednn::convolution(engine, dnnl::algorithm::convolution_direct,
                          {onednn::of(type, p.src, Tag::nhwc), onednn::of(type, p.weight, Tag::any),
                           onednn::f32(p.bias, Tag::a), onednn::of(p.dst_type, p.dst, Tag::nhwc)},
                          p.op);
  if (!pd) throw Error(ErrorCode::unsupported, p.name + ": oneDNN has no implementation");
  const memory::desc scratch = pd.scratchpad_desc();
  onednn::Source source(engine, onednn::of(p.src_type, p.src, Tag::nhwc), pd.src_desc());
  const std::size_t scratch_at = source.workspace_bytes();
  auto state = std::make_shared<Direct>(Direct{std::move(source),
                                               onednn::Call(engine, dnnl::convolution_forward(pd),
                                                            {{DNNL_ARG_SRC, pd.src_desc()},
                                                             {DNNL_ARG_WEIGHTS, pd.weights_desc()},
                                                             {DNNL_ARG_BIAS, pd.bias_desc()},
                                                             {DNNL_ARG_DST, pd.dst_desc()},
                                                             {DNNL_ARG_SCRATCHPAD, scratch}}),
                                               threads});
  Prepared prepared;
  prepared.implementation = pd.impl_info_str();
  prepared.workspace_bytes = scratch_at + scratch.get_size();
  prepared.packings.push_back(
      onednn::packing(1, onednn::f32(p.weight, Tag::oihw), pd.weights_desc(), threads));
  prepared.run = [state, scratch_at](const KernelArgs& args) {
    const onednn::ThreadScope scope(state->threads);
    state->call.bind(0, state->source.convert(args.in[0].data, args.workspace));
    state->call.bind(1, args.in[1].data);
    state->call.bind(2, args.in[2].data);
    state->call.bind(3, args.out[0].data);
    state->call.bind(4, static_cast<std::byte*>(args.workspace) + scratch_at);
    state->call.execute();
  };
  return prepared;
}

struct Winograd {
  onednn::Call block, convolve, unblock;
  std::size_t scratch_at, src_at, dst_at;  // in the workspace
  bool src_in_output;                      // the blocked source lies where the output will be
  int threads;
};

// Nothing when oneDNN has no Winograd form for the problem, or one that has not been measured.
std::optional<Prepared> winograd(const Problem& p, const dnnl::engine& engine, int threads) {
  const PrimitiveDesc pd = onednn::convolution(engine, dnnl::algorithm::convolution_winograd,
                                               {onednn::f32(p.src, Tag::any), onednn::f32(p.weight, Tag::any),
                                                onednn::f32(p.bias, Tag::a), onednn::f32(p.dst, Tag::any)},
                                               p.op);
  constexpr std::string_view measured = "jit_wino_4x3:avx512";
  if (!pd || std::strncmp(pd.impl_info_str(), measured.data(), measured.size()) != 0) return std::nullopt;
  const memory::desc src = pd.src_desc(), dst = pd.dst_desc(), weight = pd.weights_desc();
  if (!onednn::layout_name(weight)) return std::nullopt;

  const memory::desc plain_src = onednn::f32(p.src, Tag::nhwc), plain_dst = onednn::f32(p.dst, Tag::nhwc);
  // Reordering could allocate as well, so its scratchpad is ours, too.
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const dnnl::reorder::primitive_desc block(engine, plain_src, engine, src, attr);
  const dnnl::reorder::primitive_desc unblock(engine, dst, engine, plain_dst, attr);

  // Workspace: scratchpad (of one primitive at a time), blocked result, and the blocked source unless it fits
  // into the output, which is not written before the convolution has read it.
  const std::size_t scratch = std::max({pd.scratchpad_desc().get_size(), block.scratchpad_desc().get_size(),
                                        unblock.scratchpad_desc().get_size()});
  const std::size_t dst_at = padded(scratch), src_at = dst_at + padded(dst.get_size());
  const bool src_in_output = src.get_size() <= plain_dst.get_size();
  auto state = std::make_shared<Winograd>(Winograd{
      onednn::Call(
          engine, dnnl::reorder(block),
          {{DNNL_ARG_SRC, plain_src}, {DNNL_ARG_DST, src}, {DNNL_ARG_SCRATCHPAD, block.scratchpad_desc()}}),
      onednn::Call(engine, dnnl::convolution_forward(pd),
                   {{DNNL_ARG_SRC, src},
                    {DNNL_ARG_WEIGHTS, weight},
                    {DNNL_ARG_BIAS, pd.bias_desc()},
                    {DNNL_ARG_DST, dst},
                    {DNNL_ARG_SCRATCHPAD, pd.scratchpad_desc()}}),
      onednn::Call(
          engine, dnnl::reorder(unblock),
          {{DNNL_ARG_SRC, dst}, {DNNL_ARG_DST, plain_dst}, {DNNL_ARG_SCRATCHPAD, unblock.scratchpad_desc()}}),
      0, src_at, dst_at, src_in_output, threads});

  Prepared prepared;
  prepared.implementation = pd.impl_info_str();
  prepared.workspace_bytes = src_in_output ? src_at : src_at + padded(src.get_size());
  prepared.packings.push_back(onednn::packing(1, onednn::f32(p.weight, Tag::oihw), weight, threads));
  prepared.run = [state](const KernelArgs& args) {
    const onednn::ThreadScope scope(state->threads);
    auto* workspace = static_cast<std::byte*>(args.workspace);
    void* const blocked_src = state->src_in_output ? args.out[0].data : workspace + state->src_at;
    void* const blocked_dst = workspace + state->dst_at;
    void* const scratchpad = workspace + state->scratch_at;
    void* const block_args[] = {args.in[0].data, blocked_src, scratchpad};
    void* const convolve_args[] = {blocked_src, args.in[1].data, args.in[2].data, blocked_dst, scratchpad};
    void* const unblock_args[] = {blocked_dst, args.out[0].data, scratchpad};
    for (std::size_t i = 0; i < 3; ++i) state->block.bind(i, block_args[i]);
    for (std::size_t i = 0; i < 5; ++i) state->convolve.bind(i, convolve_args[i]);
    for (std::size_t i = 0; i < 3; ++i) state->unblock.bind(i, unblock_args[i]);
    state->block.execute();
    state->convolve.execute();
    state->unblock.execute();
  };
  return prepared;
}

// Nothing where oneDNN's direct form is faster or the processor lacks the instructions.
std::optional<Prepared> narrow_winograd(const Problem& p, int threads) {
  if (p.src_type != DType::bf16 || p.dst_type != DType::bf16 || p.weight[2] != 3 || p.weight[3] != 3 ||
      p.op.stride != 1 || !multiplies_bf16() || onednn::multiplies_tiles())
    return std::nullopt;
  const winograd_bf16::Problem problem{p.src[0], p.src[2], p.src[3], p.src[1],     p.dst[2],
                                       p.dst[3], p.dst[1], p.op.pad, p.op.epilogue};
  if (!winograd_bf16::pays(problem)) return std::nullopt;
  Prepared prepared;
  prepared.implementation = "winograd_2x2:avx512_bf16";
  prepared.workspace_bytes = winograd_bf16::workspace_bytes(problem, threads);
  WeightPacking packing;
  packing.input = 1;
  packing.layout = "winograd 2x2 bf16 of " + std::to_string(p.weight[0]) + "x" + std::to_string(p.weight[1]);
  packing.bytes = winograd_bf16::packed_bytes(problem);
  packing.pack = [problem, threads](const TensorView& published, void* packed) {
    winograd_bf16::pack(problem, published.as<const float>(), threads, packed);
  };
  prepared.packings.push_back(std::move(packing));
  prepared.run = [problem, threads](const KernelArgs& args) {
    winograd_bf16::run(problem,
                       {static_cast<const std::uint16_t*>(args.in[0].data), args.in[1].data,
                        static_cast<const float*>(args.in[2].data),
                        static_cast<std::uint16_t*>(args.out[0].data), args.workspace},
                       threads);
  };
  return prepared;
}

}  // namespace

Prepared prepare(const Conv2d& op, const KernelSpec& spec, const Settings& settings) {
  const Problem problem = problem_of(op, spec);
  // oneDNN counts the pixels of a map in int, and one that overflows ends in a division by zero.
  for (const memory::dims& map : {problem.src, problem.dst}) {
    constexpr std::int64_t most = std::numeric_limits<int>::max();
    if (map[2] > most / std::max<std::int64_t>(map[3], 1))
      throw Error(ErrorCode::unsupported,
                  problem.name + ": oneDNN takes maps of at most " + std::to_string(most) + " pixels");
  }
  if (op.epilogue.max_pool_2x2)
    throw Error(ErrorCode::unsupported,
                problem.name + ": the CPU does not pool in the epilogue (max_pool_2x2)");
  return onednn::translated(problem.name, [&] {
    const onednn::ThreadScope scope(settings.threads);
    const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    if (auto prepared = narrow_winograd(problem, settings.threads)) return std::move(*prepared);
    if (winograd_pays(problem)) {
      if (auto prepared = winograd(problem, engine, settings.threads)) return std::move(*prepared);
    }
    return direct(problem, engine, settings.threads);
  });
}

}  // namespace frcnn::cpu
