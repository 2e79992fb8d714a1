// Compiles where cudnn.h of version 9 says what vendor/cudnn_api.h says.
#include <cudnn.h>

#include <cstddef>

#include "tests/simt/same_abi.h"
#include "vendor/cudnn_api.h"

namespace api = frcnn::vendor::cudnn;

static_assert(CUDNN_MAJOR == 9, "another version needs another look");

#define FRCNN_SAME(member, function) \
  static_assert(frcnn::simt_test::SameAbi<decltype(api::Functions::member), decltype(&function)>::value)
FRCNN_SAME(get_version, cudnnGetVersion);
FRCNN_SAME(get_error_string, cudnnGetErrorString);
FRCNN_SAME(create, cudnnCreate);
FRCNN_SAME(destroy, cudnnDestroy);
FRCNN_SAME(set_stream, cudnnSetStream);
FRCNN_SAME(create_tensor, cudnnCreateTensorDescriptor);
FRCNN_SAME(destroy_tensor, cudnnDestroyTensorDescriptor);
FRCNN_SAME(set_tensor_4d, cudnnSetTensor4dDescriptor);
FRCNN_SAME(create_filter, cudnnCreateFilterDescriptor);
FRCNN_SAME(destroy_filter, cudnnDestroyFilterDescriptor);
FRCNN_SAME(set_filter_4d, cudnnSetFilter4dDescriptor);
FRCNN_SAME(create_convolution, cudnnCreateConvolutionDescriptor);
FRCNN_SAME(destroy_convolution, cudnnDestroyConvolutionDescriptor);
FRCNN_SAME(set_convolution_2d, cudnnSetConvolution2dDescriptor);
FRCNN_SAME(set_convolution_math, cudnnSetConvolutionMathType);
FRCNN_SAME(create_activation, cudnnCreateActivationDescriptor);
FRCNN_SAME(destroy_activation, cudnnDestroyActivationDescriptor);
FRCNN_SAME(set_activation, cudnnSetActivationDescriptor);
FRCNN_SAME(get_forward_algorithms, cudnnGetConvolutionForwardAlgorithm_v7);
FRCNN_SAME(get_forward_workspace, cudnnGetConvolutionForwardWorkspaceSize);
FRCNN_SAME(forward, cudnnConvolutionBiasActivationForward);

static_assert(api::success == CUDNN_STATUS_SUCCESS && api::bad_param == CUDNN_STATUS_BAD_PARAM / 1000 &&
              api::not_supported == CUDNN_STATUS_NOT_SUPPORTED / 1000 &&
              api::host_allocation_failed == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED &&
              api::device_allocation_failed == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED);
static_assert(api::data_float == CUDNN_DATA_FLOAT && api::data_half == CUDNN_DATA_HALF &&
              api::data_bfloat16 == CUDNN_DATA_BFLOAT16 && api::tensor_nhwc == CUDNN_TENSOR_NHWC &&
              api::cross_correlation == CUDNN_CROSS_CORRELATION);
static_assert(api::default_math == CUDNN_DEFAULT_MATH && api::tensor_op_math == CUDNN_TENSOR_OP_MATH &&
              api::fma_math == CUDNN_FMA_MATH && api::activation_relu == CUDNN_ACTIVATION_RELU &&
              api::activation_identity == CUDNN_ACTIVATION_IDENTITY &&
              api::not_propagate_nan == CUDNN_NOT_PROPAGATE_NAN && api::deterministic == CUDNN_DETERMINISTIC);
static_assert(api::implicit_gemm == CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM &&
              api::implicit_precomp_gemm == CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM &&
              api::algorithms == CUDNN_CONVOLUTION_FWD_ALGO_COUNT);

using Ours = api::AlgorithmPerformance;
using Theirs = cudnnConvolutionFwdAlgoPerf_t;
static_assert(sizeof(Ours) == sizeof(Theirs) && offsetof(Ours, algorithm) == offsetof(Theirs, algo) &&
              offsetof(Ours, status) == offsetof(Theirs, status) && offsetof(Ours, time) == offsetof(Theirs, time) &&
              offsetof(Ours, memory) == offsetof(Theirs, memory) &&
              offsetof(Ours, determinism) == offsetof(Theirs, determinism) &&
              offsetof(Ours, math) == offsetof(Theirs, mathType));
