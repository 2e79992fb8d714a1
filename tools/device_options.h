// --device, --precision and --threads, as every command that computes takes them.
#pragma once

#include <string>

#include <CLI/CLI.hpp>

#include "detector/detector.h"

namespace frcnn {

struct DeviceOptions {
  std::string device = "auto", precision = "fp32";
  int threads = 0;  // 0: all cores
};

void add_device_options(CLI::App& command, DeviceOptions& options);

DetectorOptions detector_options(const DeviceOptions& options);

}  // namespace frcnn
