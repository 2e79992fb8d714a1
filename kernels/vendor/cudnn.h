// Convolutions by cuDNN.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "kernels.h"
#include "vendor/cudnn_api.h"

namespace frcnn::vendor {

struct CudnnLibrary {
  cudnn::Functions call;
  std::string version, file;  // "9.19.0"
};

// Looks for libcudnn.so.9, or the file that FRCNN_CUDNN names. Throws Error(unsupported) that says why there is
// none, or none of use.
CudnnLibrary open_cudnn();

// A handle of the library on the current CUDA device, for one stream and one thread at a time.
class Cudnn : public std::enable_shared_from_this<Cudnn> {
 public:
  // Throws Error(unsupported), Error(out_of_memory) or Error(device).
  Cudnn(CudnnLibrary library, void* stream);
  ~Cudnn();
  Cudnn(const Cudnn&) = delete;
  Cudnn& operator=(const Cudnn&) = delete;

  const std::string& version() const { return library_.version; }

  // Nothing where the library does not take the layer: another epilogue than a bias and perhaps a ReLU, 3xTF32,
  // a result of another type than the source, a shape or size that it refuses. It may refuse as late as at the
  // first run, which then throws Error(unsupported). Sums are fp32. What was prepared keeps the handle alive.
  std::optional<Prepared> prepare(const Conv2d& op, const KernelSpec& spec, Precision precision);

 private:
  struct Convolution;
  void check(cudnn::Status status, const char* call) const;
  std::shared_ptr<Convolution> describe(const Conv2d& op, const KernelSpec& spec, int math);
  CudnnLibrary library_;
  void* handle_ = nullptr;
};

}  // namespace frcnn::vendor
