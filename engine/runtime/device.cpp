#include "runtime/device.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "frcnn/error.h"

namespace frcnn {

std::shared_ptr<Device> make_device(const std::string& name, Precision precision, int threads) {
  if (name == "auto" || name == "cpu") {
    if (precision != Precision::fp32)
      throw Error(ErrorCode::unsupported, fmt::format("precision {}: the CPU of this build computes in fp32", name_of(precision)));
    return make_cpu_device(threads);
  }
  const bool numbered = name.rfind("cuda:", 0) == 0 && name.size() > 5 &&
                        std::all_of(name.begin() + 5, name.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
  if (name == "cuda" || numbered)
    throw Error(ErrorCode::unsupported, fmt::format("device {}: this build has no CUDA kernels; use cpu or auto", name));
  throw Error(ErrorCode::invalid_argument, fmt::format("device {}: expected auto, cpu, cuda or cuda:N", name));
}

}  // namespace frcnn
