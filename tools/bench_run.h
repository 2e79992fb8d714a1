// What `frcnn bench` measures. It reports nothing; bench.cpp does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "detector/detector.h"
#include "model_io/image_file.h"

namespace frcnn {

struct BenchRequest {
  std::function<std::shared_ptr<const Model>()> load;  // timed, with the making of the first detector
  DetectorOptions detector;  // each of max_batch's images is timed together with the others of its batch
  Image picture;             // every input is its upper left part
  std::vector<std::pair<int, int>>
      sizes;                        // height, width of the inputs, taken in turn; at most the picture's
  bool on_device = false;           // the picture lies in the GPU's memory, not in the host's
  int warmup = 3, iterations = 20;  // batches of each session
  double seconds = 0;               // no batch begins later than that into the measurement; 0: no limit
  int sessions = 1;                 // each in its own thread, sharing the model
  bool per_layer = false;           // one more run of all iterations, timed node by node
  // In place of `iterations`, in a single session: asked before each batch, given all times so far.
  std::function<bool(const std::vector<double>& ms)> more;
};

struct BenchLayer {
  std::string layer, op, stage, kernel;
  double ms = 0;     // median
  double flops = 0;  // a multiplication and an addition are two
  double bytes = 0;  // of all inputs, weights in the precision's type, and outputs, each once
};

struct BenchResult {
  std::string device;
  Precision precision = Precision::fp32;
  std::vector<std::string> libraries;  // that kernels may come from
  double load_ms = 0, first_image_ms = 0;
  std::vector<double> samples_ms;  // of every batch of every session, without decoding a file
  std::size_t batches = 0;         // as many
  double wall_ms =
      0;  // from the first session's first sample to the last one's last; the sum where `more` decides
  std::vector<BenchLayer> layers;  // per_layer
  int layer_repeats = 0;  // a layer's time is among so many of its kind; 0: alone, with a wait behind it
  std::int64_t proposals = 0, detections = 0;  // of the first image
  std::size_t arena_bytes = 0;                 // that the largest plan used of a session's arena
  std::size_t reserved_bytes = 0;              // a session's arena: address space on the CPU, memory on a GPU
  std::size_t packed_bytes = 0;                // weights in the layouts of the kernels
  std::size_t peak_bytes = 0;                  // of the process, resident
  std::vector<SessionStats> sessions;          // when all images of the measurement had been seen
};

BenchResult run_bench(const BenchRequest& request);

// The q-th part of the samples is at most this: nearest rank. `samples` is not empty, q in (0,1].
double quantile(std::vector<double> samples, double q);

}  // namespace frcnn
