#include "device_options.h"

#include "frcnn/error.h"

namespace frcnn {

void add_device_options(CLI::App& command, DeviceOptions& options) {
  const std::string group = "Where it computes";
  command.add_option("--device", options.device, "auto, cpu, cuda or cuda:N; `frcnn doctor` lists what there is")
      ->type_name("NAME")
      ->capture_default_str()
      ->group(group);
  command.add_option("--precision", options.precision, "fp32; fp16 and bf16 where the device has them")
      ->check(CLI::IsMember({"fp32", "tf32", "fp16", "bf16"}).description(""))
      ->type_name("NAME")
      ->capture_default_str()
      ->group(group);
  command.add_option("--threads", options.threads, "CPU threads; 0: as many as there are cores")
      ->check(CLI::Range(0, 4096).description(""))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
}

DetectorOptions detector_options(const DeviceOptions& options) {
  if (options.precision != name_of(Precision::fp32)) {
    throw Error(ErrorCode::unsupported, "--precision " + options.precision + ": device " + options.device +
                                            " of this build computes in fp32 only");
  }
  DetectorOptions result;
  result.device = options.device;
  result.threads = options.threads;
  return result;
}

}  // namespace frcnn
