// The one place that knows how oneDNN 2.x and 3.x differ, and how its primitives become a Prepared.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <oneapi/dnnl/dnnl.hpp>

#include "frcnn/error.h"
#include "graph/ops.h"
#include "kernels.h"

namespace frcnn::cpu::onednn {

// While one lives, oneDNN uses `threads` threads for what this thread asks of it. Primitives divide their
// work when they are created, so one must live then, too, with the same number.
class ThreadScope {
 public:
  explicit ThreadScope(int threads);
  ~ThreadScope();
  ThreadScope(const ThreadScope&) = delete;
  ThreadScope& operator=(const ThreadScope&) = delete;

 private:
  int before_;
};

// No arithmetic below that of the given types, the scratchpad given by us, and the epilogue as
// post-operations.
dnnl::primitive_attr attributes(const Epilogue& epilogue);

struct ConvolutionMemory {
  dnnl::memory::desc src, weight, bias, dst;
};

// Empty (false in a condition) when no implementation takes the problem.
dnnl::convolution_forward::primitive_desc convolution(const dnnl::engine& engine, dnnl::algorithm algorithm,
                                                      const ConvolutionMemory& memory, const Conv2d& op);
dnnl::inner_product_forward::primitive_desc inner_product(const dnnl::engine& engine,
                                                          const ConvolutionMemory& memory, const Linear& op);
// src [R,I] times weight [I,O] plus bias [1,O].
dnnl::matmul::primitive_desc matrix_product(const dnnl::engine& engine, const ConvolutionMemory& memory,
                                            const Linear& op);

// The backward ones: src, weight, bias and dst describe what is multiplied, gradients or not; d_src and
// d_weight are the results that may be of another type. Empty as above.
dnnl::convolution_backward_data::primitive_desc convolution_backward_data(const dnnl::engine& engine,
                                                                          const ConvolutionMemory& memory,
                                                                          const dnnl::memory::desc& d_src,
                                                                          const dnnl::memory::dims& strides,
                                                                          const dnnl::memory::dims& padding);
dnnl::convolution_backward_weights::primitive_desc convolution_backward_weights(
    const dnnl::engine& engine, const ConvolutionMemory& memory, const dnnl::memory::desc& d_weight,
    const dnnl::memory::dims& strides, const dnnl::memory::dims& padding);
dnnl::inner_product_backward_data::primitive_desc inner_product_backward_data(
    const dnnl::engine& engine, const ConvolutionMemory& memory);
dnnl::inner_product_backward_weights::primitive_desc inner_product_backward_weights(
    const dnnl::engine& engine, const ConvolutionMemory& memory);

// to += from, or to = from; the layouts may differ. Scratchpad is given when it runs.
dnnl::reorder::primitive_desc reorder(const dnnl::engine& engine, const dnnl::memory::desc& from,
                                      const dnnl::memory::desc& to, bool accumulate);

// Everything that decides where a logical element lies in memory of this description, as text; nothing when
// oneDNN keeps that to itself. Equal texts mean equal bytes for equal values.
std::optional<std::string> layout_name(const dnnl::memory::desc& desc);

// How many neighbours along `dimension` a blocked layout keeps together; 1 for plain ones.
std::int64_t block_size(const dnnl::memory::desc& desc, int dimension);

// Input `input` of a kernel, published as `published` says, in the layout that a primitive wants. Throws
// Error(unsupported) when the layout has no name.
WeightPacking packing(int input, const dnnl::memory::desc& published, const dnnl::memory::desc& wanted,
                      int threads);

// A primitive and its arguments. execute() makes no allocation of ours; binding a pointer that is bound
// already costs nothing (otherwise oneDNN 2.x writes the zero padding anew).
class Call {
 public:
  Call(const dnnl::engine& engine, const dnnl::primitive& primitive,
       const std::vector<std::pair<int, dnnl::memory::desc>>& arguments);
  void bind(std::size_t argument, void* data);  // by position in `arguments`
  void execute();                               // throws Error(device)

 private:
  dnnl::primitive primitive_;
  dnnl::stream stream_;
  std::vector<dnnl::memory> memory_;
  std::vector<dnnl_exec_arg_t> arguments_;
};

dnnl::memory::desc f32(const dnnl::memory::dims& dims, dnnl::memory::format_tag tag);
dnnl::memory::desc of(DType dtype, const dnnl::memory::dims& dims,
                      dnnl::memory::format_tag tag);  // f32, bf16

// What a product of these maps is multiplied in: as its result is stored, so that scores and deltas lose
// nothing more than their source has lost. Sums are f32 always. Throws Error(unsupported) that starts with
// `what` for other types.
DType multiplied_in(DType src, DType dst, const std::string& what);

// Whether oneDNN multiplies bf16 with AMX here, several times as fast as with AVX-512 BF16.
bool multiplies_tiles();

// How a source gets to the type that a product is multiplied in: as it is, or through the workspace.
class Source {
 public:
  // `plain` of `stored` elements is wanted as `multiplied`.
  Source(const dnnl::engine& engine, const dnnl::memory::desc& stored, const dnnl::memory::desc& multiplied);
  std::size_t workspace_bytes() const;  // a multiple of 64
  void* convert(void* src,
                void* workspace);  // where the product finds it; src itself when nothing is to be done

 private:
  struct Conversion {
    Call call;
    std::size_t scratch_at, bytes;
  };
  std::optional<Conversion> conversion_;
};

// Runs f and turns oneDNN's exception into Error(unsupported) that starts with `what`.
template <class F>
auto translated(const std::string& what, F&& f) {
  try {
    return f();
  } catch (const dnnl::error& error) {
    throw Error(ErrorCode::unsupported, what + ": oneDNN: " + error.what());
  }
}

}  // namespace frcnn::cpu::onednn
