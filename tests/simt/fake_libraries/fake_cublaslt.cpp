// The part of cuBLASLt's C interface that the engine uses; see fake_library.h. Statuses and numbers are cuBLASLt's.
#include <exception>

#include "kernels/vendor/cublaslt_api.h"
#include "tests/simt/fake_libraries/fake_library.h"

using namespace frcnn::simt_test;
namespace api = frcnn::vendor::cublaslt;

namespace {

constexpr int execution_failed = 13;
const char marker = 0;  // its address stands for a kernel
FakeLibrary library{130100, 0, 0, 0, 0, 1 << 10, &marker};

struct Matmul {
  int compute = 0, scale = 0;
  std::int32_t transpose_a = 0, epilogue = 0;
  const void* bias = nullptr;
};
struct Layout {
  int type = 0;
  std::int64_t rows = 0, columns = 0, ld = 0;
};
struct Preference {
  std::size_t workspace = 0;
};

FakeType type_of(int type) {
  return type == api::real_16f ? FakeType::f16 : type == api::real_16bf ? FakeType::bf16 : FakeType::f32;
}

template <class T>
int destroy(void* made) {
  delete static_cast<T*>(made);
  --library.descriptors;
  return 0;
}

// d = relu(a' b + bias), a' the transpose of a, by columns.
void multiply(const Matmul& m, const void* a, const Layout& at, const void* b, const Layout& bt, void* d,
              const Layout& dt) {
  for (std::int64_t column = 0; column < dt.columns; ++column)
    for (std::int64_t row = 0; row < dt.rows; ++row) {
      double sum = load(m.bias, type_of(dt.type), row);
      for (std::int64_t k = 0; k < at.rows; ++k)
        sum += static_cast<double>(load(a, type_of(at.type), row * at.ld + k)) *
               load(b, type_of(bt.type), column * bt.ld + k);
      const float value = static_cast<float>(sum);
      const bool relu = m.epilogue == api::epilogue_relu_bias;
      store(d, type_of(dt.type), column * dt.ld + row, relu && !(value > 0) ? 0.0f : value);
    }
}

bool fits(const Matmul& m, const Layout& a, const Layout& b, const Layout& d) {
  const bool bias = m.epilogue == api::epilogue_bias || m.epilogue == api::epilogue_relu_bias;
  return m.scale == api::real_32f && m.transpose_a == api::transpose && bias && a.rows == b.rows &&
         a.columns == d.rows && b.columns == d.columns && a.type == b.type &&
         (d.type == a.type || d.type == api::real_32f);
}

}  // namespace

extern "C" {

FakeLibrary* frcnn_fake_library() { return &library; }

std::size_t cublasLtGetVersion() { return library.version; }
const char* cublasLtGetStatusName(int status) {
  return status == api::not_supported       ? "CUBLAS_STATUS_NOT_SUPPORTED"
         : status == api::allocation_failed ? "CUBLAS_STATUS_ALLOC_FAILED"
                                            : "CUBLAS_STATUS_EXECUTION_FAILED";
}
int cublasLtCreate(void** handle) {
  if (library.create_status) return library.create_status;
  *handle = new int(0);
  ++library.handles;
  return 0;
}
int cublasLtDestroy(void* handle) {
  delete static_cast<int*>(handle);
  --library.handles;
  return 0;
}
int cublasLtMatmulDescCreate(void** made, int compute, int scale) {
  *made = new Matmul{compute, scale};
  ++library.descriptors;
  return 0;
}
int cublasLtMatmulDescDestroy(void* made) { return destroy<Matmul>(made); }
int cublasLtMatmulDescSetAttribute(void* matmul, int attribute, const void* value, std::size_t bytes) {
  auto& m = *static_cast<Matmul*>(matmul);
  void* const to = attribute == api::desc_transpose_a  ? static_cast<void*>(&m.transpose_a)
                   : attribute == api::desc_epilogue   ? static_cast<void*>(&m.epilogue)
                   : attribute == api::desc_bias_pointer ? static_cast<void*>(&m.bias)
                                                         : nullptr;
  if (!to || bytes != (attribute == api::desc_bias_pointer ? sizeof m.bias : sizeof m.epilogue))
    return api::invalid_value;
  std::memcpy(to, value, bytes);
  return 0;
}
int cublasLtMatrixLayoutCreate(void** made, int type, std::uint64_t rows, std::uint64_t columns, std::int64_t ld) {
  *made = new Layout{type, static_cast<std::int64_t>(rows), static_cast<std::int64_t>(columns), ld};
  ++library.descriptors;
  return 0;
}
int cublasLtMatrixLayoutDestroy(void* made) { return destroy<Layout>(made); }
int cublasLtMatmulPreferenceCreate(void** made) {
  *made = new Preference;
  ++library.descriptors;
  return 0;
}
int cublasLtMatmulPreferenceDestroy(void* made) { return destroy<Preference>(made); }
int cublasLtMatmulPreferenceSetAttribute(void* preference, int attribute, const void* value, std::size_t bytes) {
  if (attribute == api::preference_workspace && bytes == sizeof(std::size_t)) {
    std::memcpy(&static_cast<Preference*>(preference)->workspace, value, bytes);
    return 0;
  }
  const bool alignment = attribute >= api::preference_alignment_a && attribute <= api::preference_alignment_d;
  return alignment && bytes == sizeof(std::uint32_t) ? 0 : api::invalid_value;
}
int cublasLtMatmulAlgoGetHeuristic(void*, void* matmul, void* a, void* b, void* c, void* d, void* preference,
                                   int requested, api::HeuristicResult* results, int* returned) {
  *returned = 0;
  const auto& m = *static_cast<Matmul*>(matmul);
  if (c != d || !fits(m, *static_cast<Layout*>(a), *static_cast<Layout*>(b), *static_cast<Layout*>(d)))
    return api::invalid_value;
  library.last_math = m.compute;
  if (library.heuristic_status) return library.heuristic_status;
  if (library.none_found || requested < 1 || library.workspace > static_cast<Preference*>(preference)->workspace)
    return api::not_supported;
  results[0] = {{{7}}, library.workspace, 0, 1.0f, {}};
  *returned = 1;
  return 0;
}
int cublasLtMatmulAlgoConfigGetAttribute(const api::Algorithm* algorithm, int attribute, void* value, std::size_t bytes,
                                         std::size_t* written) {
  if (attribute != api::config_id || bytes != sizeof(std::int32_t)) return api::invalid_value;
  const auto id = static_cast<std::int32_t>(algorithm->data[0]);
  std::memcpy(value, &id, sizeof id);
  *written = sizeof id;
  return 0;
}
int cublasLtMatmul(void*, void* matmul, const void* alpha, const void* a, void* a_layout, const void* b, void* b_layout,
                   const void* beta, const void* c, void* c_layout, void* d, void* d_layout,
                   const api::Algorithm* algorithm, void* workspace, std::size_t workspace_bytes, void* stream) {
  const Matmul m = *static_cast<Matmul*>(matmul);
  const Layout at = *static_cast<Layout*>(a_layout), bt = *static_cast<Layout*>(b_layout),
               dt = *static_cast<Layout*>(d_layout);
  if (!fits(m, at, bt, dt) || !m.bias || c != d || c_layout != d_layout || algorithm->data[0] != 7 ||
      *static_cast<const float*>(alpha) != 1.0f || *static_cast<const float*>(beta) != 0.0f ||
      workspace_bytes < library.workspace || (library.workspace > 0 && !workspace) || !stream)
    return api::invalid_value;
  if (library.run_status) return library.run_status;
  try {
    static_cast<FrcnnSimtStream*>(stream)->launch(&marker, [=] {
      if (library.workspace > 0) std::memset(workspace, 0x5A, library.workspace);
      multiply(m, a, at, b, bt, d, dt);
    });
  } catch (const std::exception&) {
    return execution_failed;
  }
  ++library.runs;
  return 0;
}

}  // extern "C"
