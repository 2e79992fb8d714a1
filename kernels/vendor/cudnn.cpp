#include "vendor/cudnn.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "frcnn/error.h"
#include "vendor/packing.h"
#include "vendor/shared_library.h"

namespace frcnn::vendor {
namespace {

constexpr std::size_t oldest_version = 90000, first_unknown_version = 100000;

ErrorCode code_of(cudnn::Status status) {
  const int category = status / 1000;
  if (category == cudnn::bad_param || category == cudnn::not_supported) return ErrorCode::unsupported;
  const bool full =
      status == cudnn::host_allocation_failed || status == cudnn::device_allocation_failed;
  return full ? ErrorCode::out_of_memory : ErrorCode::device;
}

const char* name_of_algorithm(int algorithm) {
  constexpr std::array<const char*, cudnn::algorithms> names{
      "implicit_gemm", "implicit_precomp_gemm", "gemm",     "direct",
      "fft",           "fft_tiling",            "winograd", "winograd_nonfused"};
  return names.at(static_cast<std::size_t>(algorithm));
}

int type_of(DType dtype) {
  return dtype == DType::f16 ? cudnn::data_half : dtype == DType::bf16 ? cudnn::data_bfloat16 : cudnn::data_float;
}

int math_of(DType stored, Precision precision) {
  if (stored != DType::f32) return cudnn::tensor_op_math;
  return precision == Precision::tf32 ? cudnn::default_math : cudnn::fma_math;
}

int as_int(std::int64_t dimension) { return static_cast<int>(dimension); }  // the device has checked

bool is_map(const TensorSpec& spec) {
  return spec.dtype == DType::f32 || spec.dtype == DType::f16 || spec.dtype == DType::bf16;
}

}  // namespace

CudnnLibrary open_cudnn() {
  const SharedLibrary library({"cuDNN", "FRCNN_CUDNN", {"libcudnn.so.9"}});
  CudnnLibrary opened;
  cudnn::Functions& call = opened.call;
  opened.file = library.file();
  library.load(call.get_version, "cudnnGetVersion");
  const std::size_t version = call.get_version();
  // Until 8 a version had three places of one and two digits; then it is too old all the same.
  opened.version = fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
  if (version < oldest_version || version >= first_unknown_version)
    throw Error(ErrorCode::unsupported, fmt::format("cuDNN: {} says that it is version {}; version 9 is needed",
                                                    opened.file, version));
  library.load(call.get_error_string, "cudnnGetErrorString");
  library.load(call.create, "cudnnCreate");
  library.load(call.destroy, "cudnnDestroy");
  library.load(call.set_stream, "cudnnSetStream");
  library.load(call.create_tensor, "cudnnCreateTensorDescriptor");
  library.load(call.destroy_tensor, "cudnnDestroyTensorDescriptor");
  library.load(call.set_tensor_4d, "cudnnSetTensor4dDescriptor");
  library.load(call.create_filter, "cudnnCreateFilterDescriptor");
  library.load(call.destroy_filter, "cudnnDestroyFilterDescriptor");
  library.load(call.set_filter_4d, "cudnnSetFilter4dDescriptor");
  library.load(call.create_convolution, "cudnnCreateConvolutionDescriptor");
  library.load(call.destroy_convolution, "cudnnDestroyConvolutionDescriptor");
  library.load(call.set_convolution_2d, "cudnnSetConvolution2dDescriptor");
  library.load(call.set_convolution_math, "cudnnSetConvolutionMathType");
  library.load(call.create_activation, "cudnnCreateActivationDescriptor");
  library.load(call.destroy_activation, "cudnnDestroyActivationDescriptor");
  library.load(call.set_activation, "cudnnSetActivationDescriptor");
  library.load(call.get_forward_algorithms, "cudnnGetConvolutionForwardAlgorithm_v7");
  library.load(call.get_forward_workspace, "cudnnGetConvolutionForwardWorkspaceSize");
  library.load(call.forward, "cudnnConvolutionBiasActivationForward");
  return opened;
}

// What describes one layer to the library; goes before the handle does.
struct Cudnn::Convolution {
  explicit Convolution(std::shared_ptr<Cudnn> owner) : cudnn(std::move(owner)) {}
  ~Convolution() {
    const cudnn::Functions& call = cudnn->library_.call;
    for (void* tensor : {x, y, bias})
      if (tensor) call.destroy_tensor(tensor);
    if (w) call.destroy_filter(w);
    if (convolution) call.destroy_convolution(convolution);
    if (activation) call.destroy_activation(activation);
  }
  Convolution(const Convolution&) = delete;
  Convolution& operator=(const Convolution&) = delete;

  std::shared_ptr<Cudnn> cudnn;
  void *x = nullptr, *y = nullptr, *bias = nullptr, *w = nullptr, *convolution = nullptr, *activation = nullptr;
  int algorithm = cudnn::implicit_precomp_gemm;
};

Cudnn::Cudnn(CudnnLibrary library, void* stream) : library_(std::move(library)) {
  check(library_.call.create(&handle_), "cudnnCreate");
  const cudnn::Status status = library_.call.set_stream(handle_, stream);
  if (status != cudnn::success) library_.call.destroy(handle_);
  check(status, "cudnnSetStream");
}

Cudnn::~Cudnn() { library_.call.destroy(handle_); }

void Cudnn::check(cudnn::Status status, const char* call) const {
  if (status == cudnn::success) return;
  throw Error(code_of(status), fmt::format("cuDNN {}: {}: {} ({})", library_.version, call,
                                           library_.call.get_error_string(status), status));
}

std::shared_ptr<Cudnn::Convolution> Cudnn::describe(const Conv2d& op, const KernelSpec& spec, int math) {
  const cudnn::Functions& call = library_.call;
  auto made = std::make_shared<Convolution>(shared_from_this());
  const Shape &src = spec.in[0].shape, &weight = spec.in[1].shape, &dst = spec.out[0].shape;
  const int type = type_of(spec.in[0].dtype);
  const auto set_map = [&](void* tensor, const Shape& s) {
    check(call.set_tensor_4d(tensor, cudnn::tensor_nhwc, type, as_int(s[0]), as_int(s[3]), as_int(s[1]), as_int(s[2])),
          "cudnnSetTensor4dDescriptor");
  };
  for (void** tensor : {&made->x, &made->y, &made->bias})
    check(call.create_tensor(tensor), "cudnnCreateTensorDescriptor");
  set_map(made->x, src);
  set_map(made->y, dst);
  set_map(made->bias, {1, 1, 1, dst[3]});
  check(call.create_filter(&made->w), "cudnnCreateFilterDescriptor");
  check(call.set_filter_4d(made->w, type, cudnn::tensor_nhwc, as_int(weight[0]), as_int(weight[1]), as_int(weight[2]),
                           as_int(weight[3])),
        "cudnnSetFilter4dDescriptor");
  check(call.create_convolution(&made->convolution), "cudnnCreateConvolutionDescriptor");
  check(call.set_convolution_2d(made->convolution, op.pad, op.pad, op.stride, op.stride, 1, 1,
                                cudnn::cross_correlation, cudnn::data_float),
        "cudnnSetConvolution2dDescriptor");
  check(call.set_convolution_math(made->convolution, math), "cudnnSetConvolutionMathType");
  check(call.create_activation(&made->activation), "cudnnCreateActivationDescriptor");
  const int activation = op.epilogue.relu ? cudnn::activation_relu : cudnn::activation_identity;
  check(call.set_activation(made->activation, activation, cudnn::not_propagate_nan, 0.0),
        "cudnnSetActivationDescriptor");
  // The only one that takes a bias without an activation.
  if (!op.epilogue.relu) return made;

  std::array<cudnn::AlgorithmPerformance, cudnn::algorithms> found{};
  int count = 0;
  check(call.get_forward_algorithms(handle_, made->x, made->w, made->convolution, made->y, cudnn::algorithms, &count,
                                    found.data()),
        "cudnnGetConvolutionForwardAlgorithm_v7");
  const auto best = std::find_if(found.begin(), found.begin() + count, [](const auto& one) {
    return one.status == cudnn::success && one.memory <= workspace_bytes &&
           one.determinism == cudnn::deterministic && one.algorithm >= 0 && one.algorithm < cudnn::algorithms;
  });
  if (best == found.begin() + count) return nullptr;
  made->algorithm = best->algorithm;
  return made;
}

std::optional<Prepared> Cudnn::prepare(const Conv2d& op, const KernelSpec& spec, Precision precision) {
  const TensorSpec &src = spec.in[0], &dst = spec.out[0];
  const Epilogue& epilogue = op.epilogue;
  if (spec.in.size() < 3 || op.operands != DType::f32 || epilogue.scale != 1.0f || epilogue.max_pool_2x2 ||
      src.dtype != dst.dtype || !is_map(src) || src.shape.elements() == 0 || dst.shape.elements() == 0 ||
      (src.dtype == DType::f32 && precision == Precision::tf32x3))
    return std::nullopt;
  std::shared_ptr<Convolution> made;
  try {
    made = describe(op, spec, math_of(src.dtype, precision));
    if (!made) return std::nullopt;
    std::size_t bytes = 0;
    check(library_.call.get_forward_workspace(handle_, made->x, made->w, made->convolution, made->y, made->algorithm,
                                              &bytes),
          "cudnnGetConvolutionForwardWorkspaceSize");
    if (bytes > workspace_bytes) return std::nullopt;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::unsupported) throw;
    return std::nullopt;
  }

  Prepared prepared;
  prepared.implementation = fmt::format("cudnn:{}:{}", name_of_algorithm(made->algorithm),
                                        arithmetic_name(src.dtype, precision));
  prepared.workspace_bytes = workspace_bytes;
  prepared.packings.push_back(filter_packing(spec.in[1].shape, src.dtype));
  if (dst.dtype != DType::f32) prepared.packings.push_back(bias_packing(dst.shape[3], dst.dtype));
  prepared.run = [made](const KernelArgs& args) {
    const float one = 1.0f, zero = 0.0f;
    const Cudnn& cudnn = *made->cudnn;
    void* const y = args.out[0].data;
    cudnn.check(cudnn.library_.call.forward(cudnn.handle_, &one, made->x, args.in[0].data, made->w, args.in[1].data,
                                            made->convolution, made->algorithm, args.workspace, workspace_bytes, &zero,
                                            made->y, y, made->bias, args.in[2].data, made->activation, made->y, y),
                "cudnnConvolutionBiasActivationForward");
  };
  return prepared;
}

}  // namespace frcnn::vendor
