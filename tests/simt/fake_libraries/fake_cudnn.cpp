// The part of cuDNN's C interface that the engine uses; see fake_library.h. Statuses and numbers are cuDNN's.
#include <exception>

#include "kernels/vendor/cudnn_api.h"
#include "tests/simt/fake_libraries/fake_library.h"

using namespace frcnn::simt_test;
namespace api = frcnn::vendor::cudnn;

namespace {

constexpr int bad_param_status = 2000, not_supported_status = 3000, execution_failed = 5000;
const char marker = 0;  // its address stands for a kernel
FakeLibrary library{91900, 0, 0, 0, 0, 1 << 10, &marker};

struct Handle {
  FrcnnSimtStream* stream = nullptr;
};
struct Tensor {
  int type = -1, n = 0, c = 0, h = 0, w = 0;
};
struct Convolution {
  int pad_h = 0, pad_w = 0, stride_h = 0, stride_w = 0, math = 0, compute = -1;
};
struct Activation {
  int mode = -1;
};

FakeType type_of(int type) {
  return type == api::data_half ? FakeType::f16 : type == api::data_bfloat16 ? FakeType::bf16 : FakeType::f32;
}

template <class T>
int create(void** made) {
  *made = new T;
  ++library.descriptors;
  return 0;
}
template <class T>
int destroy(void* made) {
  delete static_cast<T*>(made);
  --library.descriptors;
  return 0;
}

struct Problem {
  Tensor x, w, y;
  Convolution convolution;
  bool relu;
};

// y = relu(x conv w + bias); maps N,H,W,C, filters K,R,S,C.
void convolve(const Problem& p, const void* x, const void* w, const void* bias, void* y) {
  const FakeType type = type_of(p.x.type);
  std::int64_t at = 0;
  for (int n = 0; n < p.y.n; ++n)
    for (int oh = 0; oh < p.y.h; ++oh)
      for (int ow = 0; ow < p.y.w; ++ow)
        for (int k = 0; k < p.y.c; ++k) {
          double sum = 0;
          for (int r = 0; r < p.w.h; ++r)
            for (int s = 0; s < p.w.w; ++s) {
              const int h = oh * p.convolution.stride_h - p.convolution.pad_h + r,
                        col = ow * p.convolution.stride_w - p.convolution.pad_w + s;
              if (h < 0 || h >= p.x.h || col < 0 || col >= p.x.w) continue;
              const std::int64_t from = ((std::int64_t{n} * p.x.h + h) * p.x.w + col) * p.x.c,
                                 tap = ((std::int64_t{k} * p.w.h + r) * p.w.w + s) * p.x.c;
              for (int c = 0; c < p.x.c; ++c)
                sum += static_cast<double>(load(x, type, from + c)) * load(w, type, tap + c);
            }
          const float value = static_cast<float>(sum + load(bias, type, k));
          store(y, type, at++, p.relu && !(value > 0) ? 0.0f : value);
        }
}

bool fits(const Tensor& x, const Tensor& w, const Convolution& c, const Tensor& y) {
  return x.c == w.c && y.c == w.n && y.n == x.n && x.type == w.type && x.type == y.type &&
         y.h == (x.h + 2 * c.pad_h - w.h) / c.stride_h + 1 && y.w == (x.w + 2 * c.pad_w - w.w) / c.stride_w + 1 &&
         c.compute == api::data_float;
}

}  // namespace

extern "C" {

FakeLibrary* frcnn_fake_library() { return &library; }

std::size_t cudnnGetVersion() { return library.version; }
const char* cudnnGetErrorString(int status) {
  return status / 1000 == api::bad_param       ? "CUDNN_STATUS_BAD_PARAM"
         : status / 1000 == api::not_supported ? "CUDNN_STATUS_NOT_SUPPORTED"
         : status == execution_failed          ? "CUDNN_STATUS_EXECUTION_FAILED"
                                               : "CUDNN_STATUS_INTERNAL_ERROR";
}
int cudnnCreate(void** handle) {
  if (library.create_status) return library.create_status;
  *handle = new Handle;
  ++library.handles;
  return 0;
}
int cudnnDestroy(void* handle) {
  delete static_cast<Handle*>(handle);
  --library.handles;
  return 0;
}
int cudnnSetStream(void* handle, void* stream) {
  static_cast<Handle*>(handle)->stream = static_cast<FrcnnSimtStream*>(stream);
  return stream ? 0 : bad_param_status;
}
int cudnnCreateTensorDescriptor(void** made) { return create<Tensor>(made); }
int cudnnDestroyTensorDescriptor(void* made) { return destroy<Tensor>(made); }
int cudnnSetTensor4dDescriptor(void* tensor, int format, int type, int n, int c, int h, int w) {
  *static_cast<Tensor*>(tensor) = {type, n, c, h, w};
  return format == api::tensor_nhwc ? 0 : not_supported_status;
}
int cudnnCreateFilterDescriptor(void** made) { return create<Tensor>(made); }
int cudnnDestroyFilterDescriptor(void* made) { return destroy<Tensor>(made); }
int cudnnSetFilter4dDescriptor(void* filter, int type, int format, int k, int c, int h, int w) {
  *static_cast<Tensor*>(filter) = {type, k, c, h, w};
  return format == api::tensor_nhwc ? 0 : not_supported_status;
}
int cudnnCreateConvolutionDescriptor(void** made) { return create<Convolution>(made); }
int cudnnDestroyConvolutionDescriptor(void* made) { return destroy<Convolution>(made); }
int cudnnSetConvolution2dDescriptor(void* convolution, int pad_h, int pad_w, int stride_h, int stride_w, int dilation_h,
                                    int dilation_w, int mode, int compute) {
  *static_cast<Convolution*>(convolution) = {pad_h, pad_w, stride_h, stride_w, 0, compute};
  return dilation_h == 1 && dilation_w == 1 && mode == api::cross_correlation ? 0 : not_supported_status;
}
int cudnnSetConvolutionMathType(void* convolution, int math) {
  static_cast<Convolution*>(convolution)->math = math;
  return 0;
}
int cudnnCreateActivationDescriptor(void** made) { return create<Activation>(made); }
int cudnnDestroyActivationDescriptor(void* made) { return destroy<Activation>(made); }
int cudnnSetActivationDescriptor(void* activation, int mode, int nan, double) {
  static_cast<Activation*>(activation)->mode = mode;
  return nan == api::not_propagate_nan ? 0 : bad_param_status;
}
// One that wants more room than anybody has, one that gives other bits each time, and the one to take.
int cudnnGetConvolutionForwardAlgorithm_v7(void*, void* x, void* w, void* convolution, void* y, int requested,
                                           int* returned, api::AlgorithmPerformance* results) {
  *returned = 0;
  const auto& c = *static_cast<Convolution*>(convolution);
  if (!fits(*static_cast<Tensor*>(x), *static_cast<Tensor*>(w), c, *static_cast<Tensor*>(y)))
    return bad_param_status;
  library.last_math = c.math;
  if (library.heuristic_status) return library.heuristic_status;
  if (library.none_found || requested < 3) return 0;
  results[0] = {api::implicit_gemm, 0, 1.0f, std::size_t{1} << 40, api::deterministic, c.math, {}};
  results[1] = {2, 0, 1.0f, 0, 0, c.math, {}};
  results[2] = {api::implicit_precomp_gemm, 0, 1.0f, library.workspace, api::deterministic, c.math, {}};
  *returned = 3;
  return 0;
}
int cudnnGetConvolutionForwardWorkspaceSize(void*, void*, void*, void* convolution, void*, int algorithm,
                                            std::size_t* bytes) {
  library.last_math = static_cast<Convolution*>(convolution)->math;
  *bytes = library.workspace;
  if (library.heuristic_status) return library.heuristic_status;
  return !library.none_found && algorithm == api::implicit_precomp_gemm ? 0 : not_supported_status;
}
int cudnnConvolutionBiasActivationForward(void* handle, const void* alpha1, void* x_tensor, const void* x, void* w_filter,
                                          const void* w, void* convolution, int algorithm, void* workspace,
                                          std::size_t workspace_bytes, const void* alpha2, void*, const void*,
                                          void* bias_tensor, const void* bias, void* activation, void* y_tensor,
                                          void* y) {
  const Problem p{*static_cast<Tensor*>(x_tensor), *static_cast<Tensor*>(w_filter), *static_cast<Tensor*>(y_tensor),
                  *static_cast<Convolution*>(convolution),
                  static_cast<Activation*>(activation)->mode == api::activation_relu};
  const auto& b = *static_cast<Tensor*>(bias_tensor);
  if (!fits(p.x, p.w, p.convolution, p.y) || b.type != p.y.type || b.c != p.y.c ||
      algorithm != api::implicit_precomp_gemm || *static_cast<const float*>(alpha1) != 1.0f ||
      *static_cast<const float*>(alpha2) != 0.0f || workspace_bytes < library.workspace ||
      (library.workspace > 0 && !workspace))
    return bad_param_status;
  if (library.run_status) return library.run_status;
  try {
    static_cast<Handle*>(handle)->stream->launch(&marker, [=] {
      if (library.workspace > 0) std::memset(workspace, 0x5A, library.workspace);
      convolve(p, x, w, bias, y);
    });
  } catch (const std::exception&) {
    return execution_failed;
  }
  ++library.runs;
  return 0;
}

}  // extern "C"
