// Matrices are stored by columns there: result' [O,R] = weight' [O,I] source' [I,R], where a tensor [R,I] of ours
// is its matrix [I,R], and the weight [O,I] is [I,O] transposed.
#include "vendor/cublaslt.h"

#include <fmt/format.h>

#include "frcnn/error.h"
#include "vendor/packing.h"
#include "vendor/shared_library.h"

namespace frcnn::vendor {
namespace {

constexpr std::size_t oldest_version = 120000, first_unknown_version = 140000;
constexpr std::uint32_t alignment = 256;  // of everything that the engine hands out

ErrorCode code_of(cublaslt::Status status) {
  if (status == cublaslt::not_supported || status == cublaslt::invalid_value) return ErrorCode::unsupported;
  return status == cublaslt::allocation_failed ? ErrorCode::out_of_memory : ErrorCode::device;
}

int type_of(DType dtype) {
  return dtype == DType::f16 ? cublaslt::real_16f : dtype == DType::bf16 ? cublaslt::real_16bf : cublaslt::real_32f;
}

bool takes(const TensorSpec& src, const TensorSpec& dst) {
  const bool is_16_bit = src.dtype == DType::f16 || src.dtype == DType::bf16;
  return dst.dtype == src.dtype ? is_16_bit || src.dtype == DType::f32 : is_16_bit && dst.dtype == DType::f32;
}

}  // namespace

CublasLtLibrary open_cublaslt() {
  const SharedLibrary library({"cuBLASLt", "FRCNN_CUBLASLT", {"libcublasLt.so.13", "libcublasLt.so.12"}});
  CublasLtLibrary opened;
  cublaslt::Functions& call = opened.call;
  opened.file = library.file();
  library.load(call.get_version, "cublasLtGetVersion");
  const std::size_t version = call.get_version();
  opened.version = fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
  if (version < oldest_version || version >= first_unknown_version)
    throw Error(ErrorCode::unsupported,
                fmt::format("cuBLASLt: {} says that it is version {}; version 12 or 13 is needed", opened.file,
                            version));
  library.load(call.get_status_name, "cublasLtGetStatusName");
  library.load(call.create, "cublasLtCreate");
  library.load(call.destroy, "cublasLtDestroy");
  library.load(call.create_matmul, "cublasLtMatmulDescCreate");
  library.load(call.destroy_matmul, "cublasLtMatmulDescDestroy");
  library.load(call.set_matmul, "cublasLtMatmulDescSetAttribute");
  library.load(call.create_layout, "cublasLtMatrixLayoutCreate");
  library.load(call.destroy_layout, "cublasLtMatrixLayoutDestroy");
  library.load(call.create_preference, "cublasLtMatmulPreferenceCreate");
  library.load(call.destroy_preference, "cublasLtMatmulPreferenceDestroy");
  library.load(call.set_preference, "cublasLtMatmulPreferenceSetAttribute");
  library.load(call.get_heuristic, "cublasLtMatmulAlgoGetHeuristic");
  library.load(call.get_algorithm, "cublasLtMatmulAlgoConfigGetAttribute");
  library.load(call.matmul, "cublasLtMatmul");
  return opened;
}

// What describes one layer to the library; goes before the handle does.
struct CublasLt::Product {
  explicit Product(std::shared_ptr<CublasLt> owner) : lt(std::move(owner)) {}
  ~Product() {
    const cublaslt::Functions& call = lt->library_.call;
    for (void* layout : {weight, source, result})
      if (layout) call.destroy_layout(layout);
    if (matmul) call.destroy_matmul(matmul);
    if (preference) call.destroy_preference(preference);
  }
  Product(const Product&) = delete;
  Product& operator=(const Product&) = delete;

  std::shared_ptr<CublasLt> lt;
  void *matmul = nullptr, *weight = nullptr, *source = nullptr, *result = nullptr, *preference = nullptr;
  cublaslt::Algorithm algorithm{};
};

CublasLt::CublasLt(CublasLtLibrary library) : library_(std::move(library)) {
  check(library_.call.create(&handle_), "cublasLtCreate");
}

CublasLt::~CublasLt() { library_.call.destroy(handle_); }

void CublasLt::check(cublaslt::Status status, const char* call) const {
  if (status == cublaslt::success) return;
  throw Error(code_of(status), fmt::format("cuBLASLt {}: {}: {} ({})", library_.version, call,
                                           library_.call.get_status_name(status), status));
}

void CublasLt::describe(Product& p, std::int64_t rows, std::int64_t inner, std::int64_t outputs, bool relu,
                        DType stored, DType result, int compute) {
  const cublaslt::Functions& call = library_.call;
  const auto set = [&](int attribute, std::int32_t value) {
    check(call.set_matmul(p.matmul, attribute, &value, sizeof value), "cublasLtMatmulDescSetAttribute");
  };
  const auto layout = [&](void** made, DType dtype, std::int64_t height, std::int64_t width) {
    check(call.create_layout(made, type_of(dtype), static_cast<std::uint64_t>(height),
                             static_cast<std::uint64_t>(width), height),
          "cublasLtMatrixLayoutCreate");
  };
  const auto prefer = [&](int attribute, const void* value, std::size_t bytes) {
    check(call.set_preference(p.preference, attribute, value, bytes), "cublasLtMatmulPreferenceSetAttribute");
  };
  check(call.create_matmul(&p.matmul, compute, cublaslt::real_32f), "cublasLtMatmulDescCreate");
  set(cublaslt::desc_transpose_a, cublaslt::transpose);
  set(cublaslt::desc_epilogue, relu ? cublaslt::epilogue_relu_bias : cublaslt::epilogue_bias);
  layout(&p.weight, stored, inner, outputs);
  layout(&p.source, stored, inner, rows);
  layout(&p.result, result, outputs, rows);
  check(call.create_preference(&p.preference), "cublasLtMatmulPreferenceCreate");
  prefer(cublaslt::preference_workspace, &workspace_bytes, sizeof workspace_bytes);
  for (const int attribute : {cublaslt::preference_alignment_a, cublaslt::preference_alignment_b,
                              cublaslt::preference_alignment_c, cublaslt::preference_alignment_d})
    prefer(attribute, &alignment, sizeof alignment);
}

bool CublasLt::choose(Product& p) {
  cublaslt::HeuristicResult best{};
  int count = 0;
  check(library_.call.get_heuristic(handle_, p.matmul, p.weight, p.source, p.result, p.result, p.preference, 1, &best,
                                    &count),
        "cublasLtMatmulAlgoGetHeuristic");
  if (count < 1 || best.state != cublaslt::success || best.workspace_bytes > workspace_bytes) return false;
  p.algorithm = best.algorithm;
  return true;
}

std::optional<Prepared> CublasLt::product(std::int64_t rows, std::int64_t inner, const Epilogue& epilogue,
                                          const KernelSpec& spec, Precision precision) {
  const TensorSpec &src = spec.in[0], &dst = spec.out[0];
  const std::int64_t outputs = spec.in[1].shape[0];
  if (spec.in.size() < 3 || epilogue.scale != 1.0f || epilogue.max_pool_2x2 || !takes(src, dst) || rows == 0 ||
      inner == 0 || outputs == 0 || (src.dtype == DType::f32 && precision == Precision::tf32x3))
    return std::nullopt;
  const bool tf32 = src.dtype == DType::f32 && precision == Precision::tf32;
  auto made = std::make_shared<Product>(shared_from_this());
  std::int32_t id = 0;
  try {
    describe(*made, rows, inner, outputs, epilogue.relu, src.dtype, dst.dtype,
             tf32 ? cublaslt::compute_32f_fast_tf32 : cublaslt::compute_32f);
    if (!choose(*made)) return std::nullopt;
    std::size_t written = 0;
    check(library_.call.get_algorithm(&made->algorithm, cublaslt::config_id, &id, sizeof id, &written),
          "cublasLtMatmulAlgoConfigGetAttribute");
  } catch (const Error& error) {
    if (error.code() != ErrorCode::unsupported) throw;
    return std::nullopt;
  }

  Prepared prepared;
  prepared.implementation = fmt::format("cublaslt:algo{}:{}", id, arithmetic_name(src.dtype, precision));
  prepared.workspace_bytes = workspace_bytes;
  if (dst.dtype != DType::f32) prepared.packings.push_back(bias_packing(outputs, dst.dtype));
  prepared.run = [made](const KernelArgs& args) {
    const float one = 1.0f, zero = 0.0f;
    const CublasLt& lt = *made->lt;
    const void* const bias = args.in[2].data;
    void* const result = args.out[0].data;
    lt.check(lt.library_.call.set_matmul(made->matmul, cublaslt::desc_bias_pointer, &bias, sizeof bias),
             "cublasLtMatmulDescSetAttribute");
    lt.check(lt.library_.call.matmul(lt.handle_, made->matmul, &one, args.in[1].data, made->weight, args.in[0].data,
                                     made->source, &zero, result, made->result, result, made->result,
                                     &made->algorithm, args.workspace, workspace_bytes, args.stream),
             "cublasLtMatmul");
  };
  return prepared;
}

std::optional<Prepared> CublasLt::prepare(const Linear& op, const KernelSpec& spec, Precision precision) {
  const Shape& source = spec.in[0].shape;
  auto prepared = product(source[0], source.row(), op.epilogue, spec, precision);
  if (prepared) prepared->packings.push_back(matrix_packing(spec.in[1].shape, source, spec.in[0].dtype));
  return prepared;
}

std::optional<Prepared> CublasLt::prepare(const Conv2d& op, const KernelSpec& spec, Precision precision) {
  const Shape &source = spec.in[0].shape, &weight = spec.in[1].shape;
  if (weight[2] != 1 || weight[3] != 1 || op.stride != 1 || op.pad != 0 || op.operands != DType::f32)
    return std::nullopt;
  auto prepared = product(source[0] * source[1] * source[2], source[3], op.epilogue, spec, precision);
  if (prepared) prepared->packings.push_back(filter_packing(weight, spec.in[0].dtype));
  return prepared;
}

}  // namespace frcnn::vendor
