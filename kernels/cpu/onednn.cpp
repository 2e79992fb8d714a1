#include "cpu/onednn.h"

#include <span>
#include <sstream>
#include <string_view>

#include "cpu/carve.h"

#ifdef _OPENMP
#include <omp.h>
#else
// Built without OpenMP, but oneDNN may bring its own; these are null when it does not.
extern "C" {
void omp_set_num_threads(int) __attribute__((weak));
int omp_get_max_threads() __attribute__((weak));
}
#endif

namespace frcnn::cpu::onednn {

namespace {

bool has_openmp() {
#ifdef _OPENMP
  return true;
#else
  return omp_set_num_threads != nullptr && omp_get_max_threads != nullptr;
#endif
}

void put(std::ostream& out, std::string_view name, std::span<const dnnl_dim_t> values) {
  out << ' ' << name;
  for (std::size_t i = 0; i < values.size(); ++i) out << (i == 0 ? ' ' : ',') << values[i];
}

}  // namespace

ThreadScope::ThreadScope(int threads) : before_(0) {
  if (!has_openmp()) return;
  before_ = omp_get_max_threads();
  if (before_ != threads) omp_set_num_threads(threads);
}

ThreadScope::~ThreadScope() {
  if (before_ > 0) omp_set_num_threads(before_);
}

dnnl::memory::desc of(DType dtype, const dnnl::memory::dims& dims, dnnl::memory::format_tag tag) {
  using Type = dnnl::memory::data_type;
  return {dims, dtype == DType::bf16 ? Type::bf16 : Type::f32, tag};
}

dnnl::memory::desc f32(const dnnl::memory::dims& dims, dnnl::memory::format_tag tag) {
  return of(DType::f32, dims, tag);
}

DType multiplied_in(DType src, DType dst, const std::string& what) {
  for (const DType dtype : {src, dst}) {
    if (dtype != DType::f32 && dtype != DType::bf16)
      throw Error(ErrorCode::unsupported,
                  what + ": the CPU stores maps as f32 or bf16, not as " + std::string(name_of(dtype)));
  }
  return dst;
}

dnnl::primitive_attr attributes(const Epilogue& epilogue) {
  dnnl::post_ops post;
  const auto append = [&](dnnl::algorithm algorithm, float alpha) {
#if DNNL_VERSION_MAJOR >= 3
    post.append_eltwise(algorithm, alpha, 0.0f);
#else
    post.append_eltwise(1.0f, algorithm, alpha, 0.0f);
#endif
  };
  if (epilogue.relu) append(dnnl::algorithm::eltwise_relu, 0.0f);
  if (epilogue.scale != 1.0f) append(dnnl::algorithm::eltwise_linear, epilogue.scale);
  dnnl::primitive_attr attr;
  attr.set_post_ops(post);
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
#if DNNL_VERSION_MAJOR >= 3 || DNNL_VERSION_MINOR >= 6
  attr.set_fpmath_mode(dnnl::fpmath_mode::strict);  // not what the environment says
#endif
  return attr;
}

dnnl::convolution_forward::primitive_desc convolution(const dnnl::engine& engine, dnnl::algorithm algorithm,
                                                      const ConvolutionMemory& memory, const Conv2d& op) {
  using Forward = dnnl::convolution_forward;
  const dnnl::memory::dims strides{op.stride, op.stride}, padding{op.pad, op.pad};
  constexpr auto kind = dnnl::prop_kind::forward_inference;
#if DNNL_VERSION_MAJOR >= 3
  return Forward::primitive_desc(engine, kind, algorithm, memory.src, memory.weight, memory.bias, memory.dst,
                                 strides, padding, padding, attributes(op.epilogue), /*allow_empty=*/true);
#else
  const Forward::desc desc(kind, algorithm, memory.src, memory.weight, memory.bias, memory.dst, strides,
                           padding, padding);
  return Forward::primitive_desc(desc, attributes(op.epilogue), engine, /*allow_empty=*/true);
#endif
}

dnnl::inner_product_forward::primitive_desc inner_product(const dnnl::engine& engine,
                                                          const ConvolutionMemory& memory, const Linear& op) {
  using Forward = dnnl::inner_product_forward;
  constexpr auto kind = dnnl::prop_kind::forward_inference;
#if DNNL_VERSION_MAJOR >= 3
  return Forward::primitive_desc(engine, kind, memory.src, memory.weight, memory.bias, memory.dst,
                                 attributes(op.epilogue), /*allow_empty=*/true);
#else
  const Forward::desc desc(kind, memory.src, memory.weight, memory.bias, memory.dst);
  return Forward::primitive_desc(desc, attributes(op.epilogue), engine, /*allow_empty=*/true);
#endif
}

namespace {

// oneDNN derives a backward primitive from the forward one of the same problem.
dnnl::convolution_forward::primitive_desc forward_hint(const dnnl::engine& engine,
                                                       const ConvolutionMemory& memory,
                                                       const dnnl::memory::dims& strides,
                                                       const dnnl::memory::dims& padding) {
  constexpr auto kind = dnnl::prop_kind::forward_training;
  constexpr auto algorithm = dnnl::algorithm::convolution_direct;
#if DNNL_VERSION_MAJOR >= 3
  return {engine,     kind,    algorithm, memory.src, memory.weight, memory.bias,
          memory.dst, strides, padding,   padding,    attributes({})};
#else
  return {{kind, algorithm, memory.src, memory.weight, memory.bias, memory.dst, strides, padding, padding},
          attributes({}),
          engine};
#endif
}

dnnl::inner_product_forward::primitive_desc forward_hint(const dnnl::engine& engine,
                                                         const ConvolutionMemory& memory) {
  constexpr auto kind = dnnl::prop_kind::forward_training;
#if DNNL_VERSION_MAJOR >= 3
  return {engine, kind, memory.src, memory.weight, memory.bias, memory.dst, attributes({})};
#else
  return {{kind, memory.src, memory.weight, memory.bias, memory.dst}, attributes({}), engine};
#endif
}

}  // namespace

dnnl::convolution_backward_data::primitive_desc convolution_backward_data(const dnnl::engine& engine,
                                                                          const ConvolutionMemory& memory,
                                                                          const dnnl::memory::desc& d_src,
                                                                          const dnnl::memory::dims& strides,
                                                                          const dnnl::memory::dims& padding) {
  const auto hint = forward_hint(engine, memory, strides, padding);
  constexpr auto algorithm = dnnl::algorithm::convolution_direct;
#if DNNL_VERSION_MAJOR >= 3
  return {engine,  algorithm, d_src, memory.weight,  memory.dst, strides,
          padding, padding,   hint,  attributes({}), true};
#else
  return {{algorithm, d_src, memory.weight, memory.dst, strides, padding, padding},
          attributes({}),
          engine,
          hint,
          true};
#endif
}

dnnl::convolution_backward_weights::primitive_desc convolution_backward_weights(
    const dnnl::engine& engine, const ConvolutionMemory& memory, const dnnl::memory::desc& d_weight,
    const dnnl::memory::dims& strides, const dnnl::memory::dims& padding) {
  const auto hint = forward_hint(engine, memory, strides, padding);
  constexpr auto algorithm = dnnl::algorithm::convolution_direct;
#if DNNL_VERSION_MAJOR >= 3
  return {engine,  algorithm, memory.src, d_weight, memory.bias,    memory.dst,
          strides, padding,   padding,    hint,     attributes({}), true};
#else
  return {{algorithm, memory.src, d_weight, memory.bias, memory.dst, strides, padding, padding},
          attributes({}),
          engine,
          hint,
          true};
#endif
}

dnnl::inner_product_backward_data::primitive_desc inner_product_backward_data(
    const dnnl::engine& engine, const ConvolutionMemory& memory) {
  const auto hint = forward_hint(engine, memory);
#if DNNL_VERSION_MAJOR >= 3
  return {engine, memory.src, memory.weight, memory.dst, hint, attributes({}), true};
#else
  return {{memory.src, memory.weight, memory.dst}, attributes({}), engine, hint, true};
#endif
}

dnnl::inner_product_backward_weights::primitive_desc inner_product_backward_weights(
    const dnnl::engine& engine, const ConvolutionMemory& memory) {
  const auto hint = forward_hint(engine, memory);
#if DNNL_VERSION_MAJOR >= 3
  return {engine, memory.src, memory.weight, memory.bias, memory.dst, hint, attributes({}), true};
#else
  return {{memory.src, memory.weight, memory.bias, memory.dst}, attributes({}), engine, hint, true};
#endif
}

dnnl::reorder::primitive_desc reorder(const dnnl::engine& engine, const dnnl::memory::desc& from,
                                      const dnnl::memory::desc& to, bool accumulate) {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  dnnl::post_ops post;
  if (accumulate) post.append_sum(1.0f);
  attr.set_post_ops(post);
  return {engine, from, engine, to, attr};
}

dnnl::matmul::primitive_desc matrix_product(const dnnl::engine& engine, const ConvolutionMemory& memory,
                                            const Linear& op) {
  using Product = dnnl::matmul;
#if DNNL_VERSION_MAJOR >= 3
  return Product::primitive_desc(engine, memory.src, memory.weight, memory.bias, memory.dst,
                                 attributes(op.epilogue), /*allow_empty=*/true);
#else
  const Product::desc desc(memory.src, memory.weight, memory.bias, memory.dst);
  return Product::primitive_desc(desc, attributes(op.epilogue), engine, /*allow_empty=*/true);
#endif
}

std::int64_t block_size(const dnnl::memory::desc& desc, int dimension) {
  std::int64_t size = 1;
#if DNNL_VERSION_MAJOR >= 3
  const dnnl::memory::dims sizes = desc.get_inner_blks(), of = desc.get_inner_idxs();
  for (std::size_t i = 0; i < sizes.size(); ++i) size *= of[i] == dimension ? sizes[i] : 1;
#else
  if (desc.data.format_kind != dnnl_blocked) return 1;
  const dnnl_blocking_desc_t& blocks = desc.data.format_desc.blocking;
  for (int i = 0; i < blocks.inner_nblks; ++i)
    size *= blocks.inner_idxs[i] == dimension ? blocks.inner_blks[i] : 1;
#endif
  return size;
}

#if DNNL_VERSION_MAJOR >= 3
std::optional<std::string> layout_name(const dnnl::memory::desc& desc) {
  if (desc.get_format_kind() != dnnl::memory::format_kind::blocked) return std::nullopt;
  std::ostringstream out;
  out << "onednn" << DNNL_VERSION_MAJOR << " blocked " << desc.get_size();
  put(out, "type", {{static_cast<dnnl_dim_t>(desc.get_data_type())}});
  put(out, "dims", desc.get_dims());
  put(out, "padded", desc.get_padded_dims());
  put(out, "strides", desc.get_strides());
  put(out, "blocks", desc.get_inner_blks());
  put(out, "of", desc.get_inner_idxs());
  return out.str();
}
#else
std::optional<std::string> layout_name(const dnnl::memory::desc& desc) {
  const dnnl_memory_desc_t& d = desc.data;
  // Extra flags announce sums stored behind the weights of int8 kernels; float32 has none.
  if (d.extra.flags != dnnl_memory_extra_flag_none || d.offset0 != 0) return std::nullopt;
  const auto rank = static_cast<std::size_t>(d.ndims);
  std::ostringstream out;
  out << "onednn" << DNNL_VERSION_MAJOR;
  if (d.format_kind == dnnl_blocked) {
    const dnnl_blocking_desc_t& b = d.format_desc.blocking;
    out << " blocked " << desc.get_size() << " type " << d.data_type;
    put(out, "dims", {d.dims, rank});
    put(out, "padded", {d.padded_dims, rank});
    put(out, "strides", {b.strides, rank});
    put(out, "blocks", {b.inner_blks, static_cast<std::size_t>(b.inner_nblks)});
    put(out, "of", {b.inner_idxs, static_cast<std::size_t>(b.inner_nblks)});
  } else if (d.format_kind == dnnl_format_kind_wino) {
    const dnnl_wino_desc_t& w = d.format_desc.wino_desc;
    out << " winograd " << desc.get_size() << " type " << d.data_type;
    put(out, "dims", {d.dims, rank});
    const dnnl_dim_t form[] = {w.wino_format, w.r,        w.alpha,     w.ic,       w.oc,
                               w.ic_block,    w.oc_block, w.ic2_block, w.oc2_block};
    put(out, "form", form);
    out << " scale " << w.adj_scale;
  } else {
    return std::nullopt;
  }
  return out.str();
}
#endif

WeightPacking packing(int input, const dnnl::memory::desc& published, const dnnl::memory::desc& wanted,
                      int threads) {
  std::optional<std::string> name = layout_name(wanted);
  if (!name)
    throw Error(ErrorCode::unsupported, "oneDNN wants weights in a layout that it does not describe");
  WeightPacking result;
  result.input = input;
  result.layout = std::move(*name);
  result.bytes = wanted.get_size();
  result.pack = [published, wanted, threads, layout = result.layout](const TensorView& from, void* to) {
    translated("packing weights " + to_string(from.shape) + " as " + layout, [&] {
      const ThreadScope scope(threads);
      const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
      dnnl::stream stream(engine);
      dnnl::memory source(published, engine, from.data), target(wanted, engine, to);
      dnnl::reorder(source, target).execute(stream, source, target);
      stream.wait();
      return 0;
    });
  };
  return result;
}

Call::Call(const dnnl::engine& engine, const dnnl::primitive& primitive,
           const std::vector<std::pair<int, dnnl::memory::desc>>& arguments)
    : primitive_(primitive), stream_(engine) {
  memory_.reserve(arguments.size());
  for (const auto& [argument, desc] : arguments) {
    memory_.emplace_back(desc, engine, static_cast<void*>(nullptr));
    arguments_.push_back({argument, memory_.back().get()});
  }
}

void Call::bind(std::size_t argument, void* data) {
  dnnl::memory& memory = memory_[argument];
  if (memory.get_data_handle() != data) memory.set_data_handle(data);
}

void Call::execute() {
  // The C function: the C++ one copies the arguments into a new vector each time.
  dnnl_status_t status = dnnl_primitive_execute(primitive_.get(), stream_.get(),
                                                static_cast<int>(arguments_.size()), arguments_.data());
  if (status == dnnl_success) status = dnnl_stream_wait(stream_.get());
  if (status != dnnl_success) {
    throw Error(ErrorCode::device, "oneDNN failed to run a primitive, status " + std::to_string(status));
  }
}

Source::Source(const dnnl::engine& engine, const dnnl::memory::desc& stored,
               const dnnl::memory::desc& multiplied) {
  if (stored == multiplied) return;
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const dnnl::reorder::primitive_desc pd(engine, stored, engine, multiplied, attr);
  const std::size_t scratch_at = padded(multiplied.get_size());
  conversion_.emplace(Conversion{
      Call(engine, dnnl::reorder(pd),
           {{DNNL_ARG_SRC, stored}, {DNNL_ARG_DST, multiplied}, {DNNL_ARG_SCRATCHPAD, pd.scratchpad_desc()}}),
      scratch_at, scratch_at + padded(pd.scratchpad_desc().get_size())});
}

std::size_t Source::workspace_bytes() const { return conversion_ ? conversion_->bytes : 0; }

void* Source::convert(void* src, void* workspace) {
  if (!conversion_) return src;
  conversion_->call.bind(0, src);
  conversion_->call.bind(1, workspace);
  conversion_->call.bind(2, static_cast<std::byte*>(workspace) + conversion_->scratch_at);
  conversion_->call.execute();
  return workspace;
}

}  // namespace frcnn::cpu::onednn

namespace frcnn::cpu {

bool multiplies_bf16() {
  // Sets of bits: the larger sets hold those of the smaller ones.
  const unsigned isa = dnnl_get_effective_cpu_isa(), wanted = dnnl_cpu_isa_avx512_core_bf16;
  return isa != dnnl_cpu_isa_all && (isa & wanted) == wanted;
}

bool onednn::multiplies_tiles() {
  const unsigned isa = dnnl_get_effective_cpu_isa(), wanted = dnnl_cpu_isa_avx512_core_amx;
  return isa != dnnl_cpu_isa_all && (isa & wanted) == wanted;
}

}  // namespace frcnn::cpu
