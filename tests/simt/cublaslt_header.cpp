// Compiles where cublasLt.h of version 12 or 13 says what vendor/cublaslt_api.h says.
#include <cublasLt.h>

#include <cstddef>

#include "tests/simt/same_abi.h"
#include "vendor/cublaslt_api.h"

namespace api = frcnn::vendor::cublaslt;

static_assert(CUBLAS_VER_MAJOR == 12 || CUBLAS_VER_MAJOR == 13, "another version needs another look");

#define FRCNN_SAME(member, function) \
  static_assert(frcnn::simt_test::SameAbi<decltype(api::Functions::member), decltype(&function)>::value)
FRCNN_SAME(get_version, cublasLtGetVersion);
FRCNN_SAME(get_status_name, cublasLtGetStatusName);
FRCNN_SAME(create, cublasLtCreate);
FRCNN_SAME(destroy, cublasLtDestroy);
FRCNN_SAME(create_matmul, cublasLtMatmulDescCreate);
FRCNN_SAME(destroy_matmul, cublasLtMatmulDescDestroy);
FRCNN_SAME(set_matmul, cublasLtMatmulDescSetAttribute);
FRCNN_SAME(create_layout, cublasLtMatrixLayoutCreate);
FRCNN_SAME(destroy_layout, cublasLtMatrixLayoutDestroy);
FRCNN_SAME(create_preference, cublasLtMatmulPreferenceCreate);
FRCNN_SAME(destroy_preference, cublasLtMatmulPreferenceDestroy);
FRCNN_SAME(set_preference, cublasLtMatmulPreferenceSetAttribute);
FRCNN_SAME(get_heuristic, cublasLtMatmulAlgoGetHeuristic);
FRCNN_SAME(get_algorithm, cublasLtMatmulAlgoConfigGetAttribute);
FRCNN_SAME(matmul, cublasLtMatmul);

static_assert(api::success == CUBLAS_STATUS_SUCCESS && api::allocation_failed == CUBLAS_STATUS_ALLOC_FAILED &&
              api::invalid_value == CUBLAS_STATUS_INVALID_VALUE && api::not_supported == CUBLAS_STATUS_NOT_SUPPORTED);
static_assert(api::real_32f == CUDA_R_32F && api::real_16f == CUDA_R_16F && api::real_16bf == CUDA_R_16BF &&
              api::compute_32f == CUBLAS_COMPUTE_32F && api::compute_32f_fast_tf32 == CUBLAS_COMPUTE_32F_FAST_TF32 &&
              api::transpose == CUBLAS_OP_T);
static_assert(api::desc_transpose_a == CUBLASLT_MATMUL_DESC_TRANSA && api::desc_epilogue == CUBLASLT_MATMUL_DESC_EPILOGUE &&
              api::desc_bias_pointer == CUBLASLT_MATMUL_DESC_BIAS_POINTER &&
              api::epilogue_bias == CUBLASLT_EPILOGUE_BIAS && api::epilogue_relu_bias == CUBLASLT_EPILOGUE_RELU_BIAS);
static_assert(api::preference_workspace == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES &&
              api::preference_alignment_a == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES &&
              api::preference_alignment_b == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES &&
              api::preference_alignment_c == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES &&
              api::preference_alignment_d == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES &&
              api::config_id == CUBLASLT_ALGO_CONFIG_ID);

using Ours = api::HeuristicResult;
using Theirs = cublasLtMatmulHeuristicResult_t;
static_assert(sizeof(Ours) == sizeof(Theirs) && offsetof(Ours, algorithm) == offsetof(Theirs, algo) &&
              offsetof(Ours, workspace_bytes) == offsetof(Theirs, workspaceSize) &&
              offsetof(Ours, state) == offsetof(Theirs, state) && offsetof(Ours, waves) == offsetof(Theirs, wavesCount) &&
              sizeof(api::Algorithm) == sizeof(cublasLtMatmulAlgo_t));
