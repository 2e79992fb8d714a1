// The choice between our kernels and the libraries' on a CUDA device.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels.h"
#include "model_io/algo_cache.h"
#include "runtime/device.h"
#include "vendor/cublaslt.h"
#include "vendor/cudnn.h"

namespace frcnn {

// For one thread at a time, and for Algo::cudnn and Algo::automatic only: Algo::ours has none of these, so that it
// cannot open a library.
class CudaAlgos {
 public:
  // Milliseconds that the device takes for a replay.
  using Timer = std::function<double(const Recording&)>;

  // Opens the libraries on the current CUDA device. `device` is the one that this belongs to; `gpu` names its model,
  // compute capability and driver, for the keys of what is measured. Throws for Algo::cudnn Error(unsupported) where
  // a library is missing and Error(device) where one does not start, for either Error(out_of_memory), and of the file
  // with measured times Error(io) or Error(bad_file).
  CudaAlgos(Device& device, const cuda::Settings& settings, const GpuOptions& options, const std::string& gpu,
            Timer timer);

  // `ours`, or a kernel of a library in its place. Algo::cudnn tries what is new to it on memory of its own, since
  // a library may refuse a layer as late as that. Algo::automatic with options.tune measures what is new to it.
  Prepared choose(const Op& op, const KernelSpec& spec, Prepared ours);

  std::vector<std::string> libraries() const;

 private:
  std::optional<Prepared> theirs(const Op& op, const KernelSpec& spec);
  std::optional<Prepared> theirs(const Conv2d& op, const KernelSpec& spec);
  std::optional<Prepared> then_pooled(Conv2d op, const KernelSpec& spec);
  std::optional<KernelTimes> measure(const KernelSpec& spec, const Prepared& ours, const Prepared& library);
  bool runs(const std::string& layer, const KernelSpec& spec, const Prepared& library);
  Prepared fastest(const Op& op, const KernelSpec& spec, const std::string& layer, Prepared ours);

  Device& device_;
  const cuda::Settings& settings_;
  GpuOptions options_;
  Timer timer_;
  std::shared_ptr<vendor::Cudnn> cudnn_;        // null where there is none
  std::shared_ptr<vendor::CublasLt> cublaslt_;  // likewise
  std::string machine_;                         // what measured times are valid for
  LayerTimes times_;                            // of this machine
  std::map<std::string, bool> runs_;            // Algo::cudnn: by layer and kernel, whether the library takes it
};

}  // namespace frcnn
