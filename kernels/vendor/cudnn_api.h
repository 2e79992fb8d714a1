// What is used of cuDNN 9's C interface, declared here so that building needs none of its headers; where they
// are found, tests/simt/cudnn_header.cpp compares. Handles, descriptors and streams are pointers, enums ints.
#pragma once

#include <cstddef>

namespace frcnn::vendor::cudnn {

using Status = int;
inline constexpr Status success = 0;
// A status in thousands is its category.
inline constexpr int bad_param = 2, not_supported = 3;
inline constexpr Status host_allocation_failed = 4003, device_allocation_failed = 4004;

inline constexpr int data_float = 0, data_half = 2, data_bfloat16 = 9;
inline constexpr int tensor_nhwc = 1;
inline constexpr int cross_correlation = 1;
// With f32 operands default_math may round them to TF32; fma_math never does.
inline constexpr int default_math = 0, tensor_op_math = 1, fma_math = 3;
inline constexpr int activation_relu = 1, activation_identity = 5;
inline constexpr int not_propagate_nan = 0;
inline constexpr int deterministic = 1;
inline constexpr int implicit_gemm = 0, implicit_precomp_gemm = 1, algorithms = 8;

struct AlgorithmPerformance {
  int algorithm;
  Status status;
  float time;
  std::size_t memory;
  int determinism, math;
  int reserved[3];
};

struct Functions {
  std::size_t (*get_version)();  // 91900: 9.19.0
  const char* (*get_error_string)(Status status);
  Status (*create)(void** handle);
  Status (*destroy)(void* handle);
  Status (*set_stream)(void* handle, void* stream);
  Status (*create_tensor)(void** tensor);
  Status (*destroy_tensor)(void* tensor);
  Status (*set_tensor_4d)(void* tensor, int format, int type, int n, int c, int h, int w);
  Status (*create_filter)(void** filter);
  Status (*destroy_filter)(void* filter);
  Status (*set_filter_4d)(void* filter, int type, int format, int k, int c, int h, int w);
  Status (*create_convolution)(void** convolution);
  Status (*destroy_convolution)(void* convolution);
  Status (*set_convolution_2d)(void* convolution, int pad_h, int pad_w, int stride_h, int stride_w, int dilation_h,
                               int dilation_w, int mode, int compute_type);
  Status (*set_convolution_math)(void* convolution, int math);
  Status (*create_activation)(void** activation);
  Status (*destroy_activation)(void* activation);
  Status (*set_activation)(void* activation, int mode, int nan, double coefficient);
  // Best first.
  Status (*get_forward_algorithms)(void* handle, void* x, void* w, void* convolution, void* y, int requested,
                                   int* returned, AlgorithmPerformance* results);
  Status (*get_forward_workspace)(void* handle, void* x, void* w, void* convolution, void* y, int algorithm,
                                  std::size_t* bytes);
  // y = activation(alpha1 * (x conv w) + alpha2 * z + bias)
  Status (*forward)(void* handle, const void* alpha1, void* x_tensor, const void* x, void* w_filter, const void* w,
                    void* convolution, int algorithm, void* workspace, std::size_t workspace_bytes,
                    const void* alpha2, void* z_tensor, const void* z, void* bias_tensor, const void* bias,
                    void* activation, void* y_tensor, void* y);
};

}  // namespace frcnn::vendor::cudnn
