// --device, --precision, --threads and what else says where and how to compute, as every command that computes takes
// them.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>

#include "detector/detector.h"
#include "runtime/device.h"

namespace frcnn {

struct DeviceOptions {
  std::string device = "auto", precision = "fp32";
  int threads = 0;  // 0: all cores
  bool no_graphs = false;
  std::string algo = "ours", algo_cache;
  bool tune = false;
};

void add_device_options(CLI::App& command, DeviceOptions& options);

DetectorOptions detector_options(const DeviceOptions& options);

// --batch, with `what` as its help.
void add_batch_option(CLI::App& command, int& batch, const std::string& what);

// For `images` images, at least one: memory for larger batches would never be used.
DetectorOptions detector_options(const DeviceOptions& options, int batch, std::size_t images);

// The device for a detector. When --device auto had to take the CPU, a note on standard error says why, unless
// `quietly`.
std::shared_ptr<Device> open_device(const DetectorOptions& options, bool quietly = false);

}  // namespace frcnn
