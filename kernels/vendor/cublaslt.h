// Fully connected layers, and convolutions that are one, by cuBLASLt.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "kernels.h"
#include "vendor/cublaslt_api.h"

namespace frcnn::vendor {

struct CublasLtLibrary {
  cublaslt::Functions call;
  std::string version, file;  // "13.1.0"
};

// Looks for libcublasLt.so.13 and .12, or the file that FRCNN_CUBLASLT names. Throws Error(unsupported) that says
// why there is none, or none of use.
CublasLtLibrary open_cublaslt();

// A handle of the library on the current CUDA device. For one thread at a time.
class CublasLt : public std::enable_shared_from_this<CublasLt> {
 public:
  // Throws Error(unsupported), Error(out_of_memory) or Error(device).
  explicit CublasLt(CublasLtLibrary library);
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  const std::string& version() const { return library_.version; }

  // Nothing where the library does not take the layer, as Cudnn::prepare(); f32 results of 16-bit sources it
  // takes. Of convolutions those of single cells, without stride and padding. Sums are fp32. What was prepared
  // keeps the handle alive.
  std::optional<Prepared> prepare(const Linear& op, const KernelSpec& spec, Precision precision);
  std::optional<Prepared> prepare(const Conv2d& op, const KernelSpec& spec, Precision precision);

 private:
  struct Product;
  void check(cublaslt::Status status, const char* call) const;
  std::optional<Prepared> product(std::int64_t rows, std::int64_t inner, const Epilogue& epilogue,
                                  const KernelSpec& spec, Precision precision);
  void describe(Product& product, std::int64_t rows, std::int64_t inner, std::int64_t outputs, bool relu,
                DType stored, DType result, int compute);
  bool choose(Product& product);
  CublasLtLibrary library_;
  void* handle_ = nullptr;
};

}  // namespace frcnn::vendor
