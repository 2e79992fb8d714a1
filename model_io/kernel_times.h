// Which kernels were measured to be the fastest, as JSON:
//
//   {"format": "frcnn kernel times", "version": 1,
//    "machines": {"NVIDIA H100, compute capability 9.0, driver 13.0, cuDNN 9.19.0, ...": {
//      "conv2d stride 1 pad 1 relu, fp16: 1x600x1000x64 f16, ... -> 1x600x1000x64 f16":
//        {"ours": "gemm:fp16:128x64:vector", "ours_ms": 0.1, "library": "cudnn:implicit_precomp_gemm:fp16",
//         "library_ms": 0.09}}}}
//
// library_ms is null where the library refused the layer when it was to run.
#pragma once

#include <map>
#include <optional>
#include <string>

namespace frcnn {

struct KernelTimes {
  std::string ours, library;  // the kernels that were measured
  double ours_ms = 0;
  std::optional<double> library_ms;
  bool operator==(const KernelTimes&) const = default;
};

using LayerTimes = std::map<std::string, KernelTimes>;      // by layer: op, attributes, precision and shapes
using MachineTimes = std::map<std::string, LayerTimes>;     // by GPU, driver and versions

// `name` stands for the file in messages. Throws Error(bad_file) that names the place.
MachineTimes kernel_times_from_json(const std::string& text, const std::string& name);
std::string kernel_times_to_json(const MachineTimes& times);  // ends with a newline

}  // namespace frcnn
