#include "device_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace frcnn {
namespace {

constexpr const char* group = "Where it computes";

}  // namespace

void add_device_options(CLI::App& command, DeviceOptions& options) {
  std::vector<std::string> precisions(precision_names.begin(), precision_names.end());
  precisions.emplace_back("auto");
  command
      .add_option("--device", options.device, "auto, cpu, cuda or cuda:N; `frcnn doctor` lists what there is")
      ->type_name("NAME")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--precision", options.precision,
                  "fp32, tf32x3, tf32, fp16 or bf16, where the device has them; auto: bf16 if it multiplies "
                  "that in hardware, else fp32")
      ->check(CLI::IsMember(precisions).description(""))
      ->type_name("NAME")
      ->capture_default_str()
      ->group(group);
  command.add_option("--threads", options.threads, "CPU threads; 0: as many as there are cores")
      ->check(CLI::Range(0, 4096).description(""))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command
      .add_flag("--no-graphs", options.no_graphs,
                "launch kernel by kernel on a GPU, not as one CUDA graph; the results are the same")
      ->group(group);
  const std::vector<std::string> algos(algo_names.begin(), algo_names.end());
  command
      .add_option("--algo", options.algo,
                  "kernels for convolutions and fully connected layers on a GPU: ours; cudnn: those of cuDNN and "
                  "cuBLASLt where they take the layer; auto: the fastest that --tune found, else ours")
      ->check(CLI::IsMember(algos).description(""))
      ->type_name("NAME")
      ->capture_default_str()
      ->group(group);
  command
      .add_flag("--tune", options.tune,
                "with --algo auto: measure layers of sizes not measured before, when the first image of a size comes")
      ->group(group);
  command
      .add_option("--algo-cache", options.algo_cache,
                  "with --algo auto: the file that keeps what was measured; default: frcnn/algos.json in "
                  "$XDG_CACHE_HOME or ~/.cache")
      ->type_name("FILE")
      ->group(group);
  command.parse_complete_callback([&options] {
    if (options.algo != "auto" && (options.tune || !options.algo_cache.empty()))
      throw CLI::ValidationError("--tune and --algo-cache go with --algo auto");
  });
}

DetectorOptions detector_options(const DeviceOptions& options) {
  DetectorOptions result;
  result.device = options.device;
  result.precision =
      options.precision == "auto" ? fast_precision(options.device) : parse_precision(options.precision);
  result.threads = options.threads;
  result.gpu.graphs = !options.no_graphs;
  const auto algo = std::find(algo_names.begin(), algo_names.end(), options.algo);
  result.gpu.algo = static_cast<Algo>(algo - algo_names.begin());
  result.gpu.tune = options.tune;
  result.gpu.algo_cache = options.algo_cache;
  return result;
}

void add_batch_option(CLI::App& command, int& batch, const std::string& what) {
  command.add_option("--batch", batch, what)
      ->check(CLI::Range(1, 1024).description(""))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
}

DetectorOptions detector_options(const DeviceOptions& options, int batch, std::size_t images) {
  DetectorOptions result = detector_options(options);
  result.max_batch = static_cast<int>(std::clamp<std::size_t>(images, 1, static_cast<std::size_t>(batch)));
  return result;
}

std::shared_ptr<Device> open_device(const DetectorOptions& options, bool quietly) {
  std::string why_cpu;
  auto device = make_device(options.device, options.precision, options.threads, &why_cpu, options.gpu);
  if (!why_cpu.empty() && !quietly)
    fmt::print(stderr, "frcnn: note: --device auto takes the CPU: {}\n", why_cpu);
  return device;
}

}  // namespace frcnn
