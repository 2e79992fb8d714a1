// Checkpoints: a model file that detects, and beside its weights everything that makes the run go on bit for
// bit.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "detector/model.h"
#include "training/run_config.h"
#include "training/train_network.h"

namespace frcnn {

// Random choices and learning rates are functions of these numbers and the configuration; there is no other
// state.
struct RunPosition {
  std::int64_t step = 0;   // updates made
  std::int64_t batch = 0;  // the sampler's next batch: ahead of step where broken images were skipped
  double seconds = 0;      // spent so far
};

// What a run computes on. Another device, number of threads or choice of kernels rounds differently.
struct RunDevice {
  std::string device, precision;
  int threads = 0;
  std::string algo = "ours";  // one of algo_names
};

// What the evaluations until now have shown, made on one set by one metric.
struct BestScore {
  std::string set, metric;
  std::int64_t evaluated_step = -1;  // of the newest one; -1: there was none
  std::int64_t step = -1;            // of the best one
  std::optional<double> map;
};

struct Checkpoint {
  RunConfig config;
  std::vector<std::string> classes;
  ModelConfig model;
  std::uint64_t data_fingerprint = 0;  // TrainDataset
  RunDevice device;
  RunPosition position;
  BestScore best;
  HostTensors state;  // TrainNetwork::state()
};

// Written whole or not at all. `deployed` has the weights that detect.
void write_checkpoint(const std::string& path, const Checkpoint& checkpoint, const Model& deployed);

// Throws Error(io), Error(bad_file), or Error(bad_model) for a model file that is no checkpoint.
Checkpoint read_checkpoint(const std::string& path);

// Throws Error(invalid_argument) that names every difference, when a run with this configuration, model and
// data would not be the checkpoint's. More iterations are no difference where the learning rate does not
// depend on their number, nor is what becomes of broken images, since no update until here met one that is
// treated otherwise.
void check_same_run(const Checkpoint& checkpoint, const std::string& path, const RunConfig& config,
                    const ModelConfig& model, std::uint64_t data_fingerprint);

std::string checkpoint_path(const std::string& run_directory, std::int64_t step);

// Steps and paths of RUN_DIR/checkpoint-<step>.safetensors, ascending. Empty where there is no such folder.
std::vector<std::pair<std::int64_t, std::string>> find_checkpoints(const std::string& run_directory);

// A plain model file of a deployed model.
void write_deployed(const std::string& path, const Model& deployed);

}  // namespace frcnn
