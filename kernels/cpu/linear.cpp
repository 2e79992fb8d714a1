// Fully connected layers through oneDNN: as a matrix product where that has a kernel of its own (brgemm),
// which was up to a fifth faster than the inner product in oneDNN 2.6, or as an inner product.
//
// A rank-4 source lies in memory as H,W,C, its weight's columns are published as C,H,W; packing moves the
// columns.
#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cpu/onednn.h"
#include "cpu/parallel.h"
#include "frcnn/error.h"
#include "kernels.h"

namespace frcnn::cpu {

namespace {

using dnnl::memory;
using Tag = memory::format_tag;

struct Problem {
  Linear op;
  std::int64_t rows, outputs;
  std::int64_t channels, cells;  // of one row: channels of each of the cells; one cell for a rank-2 source
  DType src_type, dst_type, multiplied;
  std::string name;  // for messages
};

Problem problem_of(const Linear& op, const KernelSpec& spec, const std::string& name) {
  const Shape &s = spec.in[0].shape, &w = spec.in[1].shape;
  const DType src = spec.in[0].dtype, dst = spec.out[0].dtype;
  const std::int64_t channels = s[s.rank - 1], cells = s.rank == 4 ? s[1] * s[2] : 1;
  return {op, s[0], w[0], channels, cells, src, dst, onednn::multiplied_in(src, dst, name), name};
}

// What a primitive of either kind gives to run and to pack for it.
struct Product {
  dnnl::primitive primitive;
  std::string implementation;
  memory::desc src, weight, bias, dst, scratch;
  WeightPacking packing;
};

// Rows [first, first + count) of the published weight with their columns in the order of the source's memory.
// A few channels at a time stay in the first-level cache while their cells are spread.
void reorder_columns(const Problem& p, const float* published, std::int64_t first, std::int64_t count,
                     int threads, float* to) {
  constexpr std::int64_t step = 16;
  const std::int64_t row = p.cells * p.channels;
  parallel_for(count, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float* src = published + (first + r) * row;
      float* dst = to + r * row;
      for (std::int64_t c0 = 0; c0 < p.channels; c0 += step) {
        const std::int64_t c1 = std::min(c0 + step, p.channels);
        for (std::int64_t cell = 0; cell < p.cells; ++cell) {
          for (std::int64_t c = c0; c < c1; ++c) dst[cell * p.channels + c] = src[c * p.cells + cell];
        }
      }
    }
  });
}

// A slice of whole blocks of outputs at a time, so that the copy in between stays small: fc6 of VGG-16 has
// 411 MB.
void pack_in_slices(const Problem& p, const memory::desc& weight, int threads, const float* published,
                    void* packed) {
  const std::int64_t inputs = p.cells * p.channels, block = onednn::block_size(weight, 1);
  const std::int64_t slice = std::max<std::int64_t>(block, 64 / block * block);
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  std::vector<float> rows(static_cast<std::size_t>(std::min(slice, p.outputs) * inputs));
  for (std::int64_t first = 0; first < p.outputs; first += slice) {
    const std::int64_t count = std::min(slice, p.outputs - first);
    reorder_columns(p, published, first, count, threads, rows.data());
    dnnl::memory source(onednn::f32({inputs, count}, Tag::ba), engine, rows.data());
    dnnl::memory target(weight.submemory_desc({inputs, count}, {0, first}), engine, packed);
    dnnl::reorder(source, target).execute(stream, source, target);
    stream.wait();
  }
}

// Nothing where oneDNN would run its general product, or keeps the weight's layout to itself.
std::optional<Product> matrix_product(const Problem& p, const dnnl::engine& engine, int threads) {
  const std::int64_t inputs = p.cells * p.channels;
  const auto pd = onednn::matrix_product(
      engine,
      {onednn::of(p.multiplied, {p.rows, inputs}, Tag::ab),
       onednn::of(p.multiplied, {inputs, p.outputs}, Tag::any), onednn::f32({1, p.outputs}, Tag::ab),
       onednn::of(p.dst_type, {p.rows, p.outputs}, Tag::ab)},
      p.op);
  constexpr std::string_view wanted = "brg";
  if (!pd || std::strncmp(pd.impl_info_str(), wanted.data(), wanted.size()) != 0) return std::nullopt;
  const memory::desc weight = pd.weights_desc();
  if (!onednn::layout_name(weight)) return std::nullopt;
  WeightPacking packing = onednn::packing(1, onednn::f32({inputs, p.outputs}, Tag::ba), weight, threads);
  if (p.cells > 1) {
    packing.layout += " columns of " + std::to_string(p.cells) + " cells";
    packing.pack = [p, weight, threads](const TensorView& published, void* packed) {
      onednn::translated(p.name + ": packing its weight", [&] {
        const onednn::ThreadScope scope(threads);
        // What blocks add at the ends must be zero, and slices do not write all of it.
        const std::size_t element = p.multiplied == DType::bf16 ? 2 : 4;
        if (weight.get_size() > static_cast<std::size_t>(p.cells * p.channels * p.outputs) * element)
          std::memset(packed, 0, weight.get_size());
        pack_in_slices(p, weight, threads, published.as<const float>(), packed);
        return 0;
      });
    };
  }
  return Product{dnnl::matmul(pd), pd.impl_info_str(), pd.src_desc(),        weight,
                 pd.bias_desc(),   pd.dst_desc(),      pd.scratchpad_desc(), std::move(packing)};
}

Product inner_product(const Problem& p, const KernelSpec& spec, const dnnl::engine& engine, int threads) {
  const Shape& s = spec.in[0].shape;
  const bool map = s.rank == 4;
  // A map's weight is OIHW to oneDNN, and its packing moves the columns.
  const memory::dims src = map ? memory::dims{s[0], s[3], s[1], s[2]} : memory::dims{s[0], s[1]};
  memory::dims weight = src;
  weight[0] = p.outputs;
  const auto pd = onednn::inner_product(
      engine,
      {onednn::of(p.multiplied, src, map ? Tag::nhwc : Tag::ab), onednn::of(p.multiplied, weight, Tag::any),
       onednn::f32({p.outputs}, Tag::a), onednn::of(p.dst_type, {p.rows, p.outputs}, Tag::ab)},
      p.op);
  if (!pd) throw Error(ErrorCode::unsupported, p.name + ": oneDNN has no implementation");
  WeightPacking packing =
      onednn::packing(1, onednn::f32(weight, map ? Tag::oihw : Tag::ab), pd.weights_desc(), threads);
  return {dnnl::inner_product_forward(pd),
          pd.impl_info_str(),
          pd.src_desc(),
          pd.weights_desc(),
          pd.bias_desc(),
          pd.dst_desc(),
          pd.scratchpad_desc(),
          std::move(packing)};
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
    const Problem problem = problem_of(op, spec, name);
    std::optional<Product> chosen = matrix_product(problem, engine, settings.threads);
    if (!chosen) chosen = inner_product(problem, spec, engine, settings.threads);
    // The same elements in the same order, only stored in another type.
    memory::dims dims{problem.rows, problem.cells * problem.channels};
    auto source = std::make_shared<onednn::Source>(engine, onednn::of(problem.src_type, dims, Tag::ab),
                                                   onednn::of(problem.multiplied, dims, Tag::ab));
    auto call = std::make_shared<onednn::Call>(
        engine, chosen->primitive,
        std::vector<std::pair<int, memory::desc>>{{DNNL_ARG_SRC, chosen->src},
                                                  {DNNL_ARG_WEIGHTS, chosen->weight},
                                                  {DNNL_ARG_BIAS, chosen->bias},
                                                  {DNNL_ARG_DST, chosen->dst},
                                                  {DNNL_ARG_SCRATCHPAD, chosen->scratch}});
    Prepared prepared;
    prepared.implementation = chosen->implementation;
    const std::size_t scratch_at = source->workspace_bytes();
    prepared.workspace_bytes = scratch_at + chosen->scratch.get_size();
    prepared.packings.push_back(std::move(chosen->packing));
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
