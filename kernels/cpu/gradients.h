// What the gradients of convolutions and fully connected layers share.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "cpu/onednn.h"

namespace frcnn::cpu {

// A prepared kernel with in: d_dst (as `stored` says), weight (as `published`) and out: d_src. `pd` is a
// backward-data primitive descriptor of oneDNN.
template <class PrimitiveDesc, class Primitive>
Prepared data_gradient(const PrimitiveDesc& pd, Primitive primitive, const onednn::ConvolutionMemory& stored,
                       const dnnl::memory::desc& published, const dnnl::engine& engine, int threads) {
  struct State {
    onednn::Source d_dst;
    onednn::Call call;
    int threads;
  };
  onednn::Source d_dst(engine, stored.dst, pd.diff_dst_desc());
  const std::size_t scratch_at = d_dst.workspace_bytes();
  auto state = std::make_shared<State>(State{std::move(d_dst),
                                             onednn::Call(engine, primitive,
                                                          std::vector<std::pair<int, dnnl::memory::desc>>{
                                                              {DNNL_ARG_DIFF_DST, pd.diff_dst_desc()},
                                                              {DNNL_ARG_WEIGHTS, pd.weights_desc()},
                                                              {DNNL_ARG_DIFF_SRC, pd.diff_src_desc()},
                                                              {DNNL_ARG_SCRATCHPAD, pd.scratchpad_desc()}}),
                                             threads});
  Prepared prepared;
  prepared.implementation = pd.impl_info_str();
  prepared.workspace_bytes = scratch_at + pd.scratchpad_desc().get_size();
  prepared.packings.push_back(onednn::packing(1, published, pd.weights_desc(), threads));
  prepared.run = [state, scratch_at](const KernelArgs& args) {
    const onednn::ThreadScope running(state->threads);
    state->call.bind(0, state->d_dst.convert(args.in[0].data, args.workspace));
    state->call.bind(1, args.in[1].data);
    state->call.bind(2, args.out[0].data);
    state->call.bind(3, static_cast<std::byte*>(args.workspace) + scratch_at);
    state->call.execute();
  };
  return prepared;
}

// The weight's gradient comes in a layout of oneDNN's own and is then copied or added to where it belongs.
// A prepared kernel with in: src, d_dst (as `stored` says) and out: d_weight laid out as `published`, d_bias.
// `pd` is a backward-weights primitive descriptor of oneDNN.
template <class PrimitiveDesc, class Primitive>
Prepared weight_gradient(const PrimitiveDesc& pd, Primitive primitive,
                         const onednn::ConvolutionMemory& stored, const dnnl::memory::desc& published,
                         bool accumulate, const dnnl::engine& engine, int threads) {
  using Arguments = std::vector<std::pair<int, dnnl::memory::desc>>;
  struct State {
    onednn::Source src, d_dst;
    onednn::Call compute, place_weight, place_bias;
    std::size_t d_dst_at, scratch_at, weight_at, bias_at;  // in the workspace
    bool place;                                            // computed in the workspace first
    int threads;
  };
  onednn::Source src(engine, stored.src, pd.src_desc()), d_dst(engine, stored.dst, pd.diff_dst_desc());
  const std::size_t d_dst_at = src.workspace_bytes(), scratch_at = d_dst_at + d_dst.workspace_bytes();
  const dnnl::memory::desc weight = pd.diff_weights_desc(), bias = pd.diff_bias_desc();
  const bool place = accumulate || weight != published;
  const auto move_weight = onednn::reorder(engine, weight, published, accumulate);
  const auto move_bias = onednn::reorder(engine, bias, bias, accumulate);
  const auto padded = [](std::size_t bytes) { return (bytes + 63) / 64 * 64; };
  const std::size_t weight_at =
      scratch_at + padded(std::max({pd.scratchpad_desc().get_size(), move_weight.scratchpad_desc().get_size(),
                                    move_bias.scratchpad_desc().get_size()}));
  const std::size_t bias_at = weight_at + (place ? padded(weight.get_size()) : 0);
  auto state = std::make_shared<State>(
      State{std::move(src), std::move(d_dst),
            onednn::Call(engine, primitive,
                         Arguments{{DNNL_ARG_SRC, pd.src_desc()},
                                   {DNNL_ARG_DIFF_DST, pd.diff_dst_desc()},
                                   {DNNL_ARG_DIFF_WEIGHTS, weight},
                                   {DNNL_ARG_DIFF_BIAS, bias},
                                   {DNNL_ARG_SCRATCHPAD, pd.scratchpad_desc()}}),
            onednn::Call(engine, dnnl::reorder(move_weight),
                         Arguments{{DNNL_ARG_FROM, weight},
                                   {DNNL_ARG_TO, published},
                                   {DNNL_ARG_SCRATCHPAD, move_weight.scratchpad_desc()}}),
            onednn::Call(engine, dnnl::reorder(move_bias),
                         Arguments{{DNNL_ARG_FROM, bias},
                                   {DNNL_ARG_TO, bias},
                                   {DNNL_ARG_SCRATCHPAD, move_bias.scratchpad_desc()}}),
            d_dst_at, scratch_at, weight_at, bias_at, place, threads});
  Prepared prepared;
  prepared.implementation = pd.impl_info_str();
  prepared.workspace_bytes = bias_at + (place ? padded(bias.get_size()) : 0);
  prepared.run = [state](const KernelArgs& args) {
    const onednn::ThreadScope scope(state->threads);
    auto* workspace = static_cast<std::byte*>(args.workspace);
    void* const src = state->src.convert(args.in[0].data, workspace);
    void* const d_dst = state->d_dst.convert(args.in[1].data, workspace + state->d_dst_at);
    void* const scratchpad = workspace + state->scratch_at;
    void* const d_weight = state->place ? workspace + state->weight_at : args.out[0].data;
    void* const d_bias = state->place ? workspace + state->bias_at : args.out[1].data;
    void* const compute[] = {src, d_dst, d_weight, d_bias, scratchpad};
    for (std::size_t i = 0; i < 5; ++i) state->compute.bind(i, compute[i]);
    state->compute.execute();
    if (!state->place) return;
    void* const place_weight[] = {d_weight, args.out[0].data, scratchpad};
    void* const place_bias[] = {d_bias, args.out[1].data, scratchpad};
    for (std::size_t i = 0; i < 3; ++i) state->place_weight.bind(i, place_weight[i]);
    for (std::size_t i = 0; i < 3; ++i) state->place_bias.bind(i, place_bias[i]);
    state->place_weight.execute();
    state->place_bias.execute();
  };
  return prepared;
}

// The gradient of no rows at all.
inline Prepared zero_gradient(bool accumulate) {
  Prepared prepared;
  prepared.implementation = "plain";
  prepared.run = [accumulate](const KernelArgs& args) {
    if (accumulate) return;
    for (const TensorView& out : args.out) std::fill_n(out.as<float>(), out.shape.elements(), 0.0f);
  };
  return prepared;
}

}  // namespace frcnn::cpu
