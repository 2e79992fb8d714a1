#include "runtime/device.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>

#include "frcnn/error.h"

namespace frcnn {
namespace {

std::shared_ptr<Device> make_cpu(Precision precision, int threads, const std::string& instead) {
  try {
    return make_cpu_device(threads, precision);
  } catch (const Error& error) {
    throw Error(error.code(), error.what() + instead);
  }
}

#if defined(FRCNN_WITH_CUDA)
std::shared_ptr<Device> make_cuda(const std::string&, int index, Precision precision, const GpuOptions& gpu) {
  return make_cuda_device(index, precision, gpu);
}
#else
std::shared_ptr<Device> make_cuda(const std::string& name, int, Precision, const GpuOptions&) {
  throw Error(ErrorCode::unsupported, fmt::format("{}: this build has no CUDA device", name));
}
#endif

}  // namespace

#if !defined(FRCNN_WITH_CUDA)
CudaFindings find_cuda() { return {"", "", "this build has no CUDA device", {}}; }
std::vector<LibraryFinding> find_gpu_libraries() { return {}; }
#endif

std::shared_ptr<Device> make_device(const std::string& name, Precision precision, int threads, std::string* why_cpu,
                                    const GpuOptions& gpu) {
  if (gpu.algo != Algo::automatic && (gpu.tune || !gpu.algo_cache.empty()))
    throw Error(ErrorCode::invalid_argument, "kernels are measured, and kept in a file, only for the choice auto");
  const bool needs_gpu = gpu.algo == Algo::cudnn;
  if (name == "cpu" && needs_gpu)
    throw Error(ErrorCode::invalid_argument, "cpu: cuDNN's kernels were asked for, which run on a GPU only");
  if (name == "cpu") return make_cpu(precision, threads, "");
  if (name == "auto") {
    try {
      return make_cuda("cuda:0", 0, precision, gpu);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::unsupported || needs_gpu) throw;
      if (why_cpu) *why_cpu = error.what();
      return make_cpu(precision, threads, fmt::format("; {}", error.what()));
    }
  }
  if (name == "cuda") return make_cuda(name, 0, precision, gpu);
  int index = 0;
  const char* const end = name.data() + name.size();
  if (name.rfind("cuda:", 0) == 0 && name.size() > 5 &&
      std::all_of(name.begin() + 5, name.end(), [](unsigned char c) { return std::isdigit(c) != 0; })) {
    if (std::from_chars(name.data() + 5, end, index).ec != std::errc())
      throw Error(ErrorCode::unsupported, fmt::format("{}: no machine has so many devices", name));
    return make_cuda(name, index, precision, gpu);
  }
  throw Error(ErrorCode::invalid_argument, fmt::format("device {}: expected auto, cpu, cuda or cuda:N", name));
}

Precision fast_precision(const std::string& name) {
  try {
    return make_device(name, Precision::bf16)->precision();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::unsupported) throw;
    return Precision::fp32;
  }
}

}  // namespace frcnn
