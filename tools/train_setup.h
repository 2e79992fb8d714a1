// From the options of `frcnn train` to everything that a run needs.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "device_options.h"
#include "training/architecture.h"
#include "training/checkpoint.h"
#include "training/initial_weights.h"
#include "training/train_dataset.h"

namespace frcnn {

struct TrainCommand {
  std::string out;
  bool resume = false;
  // Kept in RUN_DIR/run.json, and taken from there on --resume where they are not given; another `init` is
  // then refused.
  std::string data, train_set, val_set, init, classes, scheme = "joint", metric = "voc07";
  std::int64_t checkpoint_every = 1000, keep_checkpoints = 3,
               evaluate_every = -1;  // -1: with each checkpoint
  int loader_threads = 2;
  DeviceOptions device;
  // What makes the configuration.
  std::string arch, preset, config;
  std::vector<std::string> sets;  // KEY=VALUE
  std::optional<std::int64_t> iterations;
  std::optional<std::uint64_t> seed;
  std::set<std::string> given;  // keys of run.json that the command line has
  std::string recorded_set;     // on --resume: the training set of run.json
};

// A run's directory, made where it is missing and held: another process that asks for it gets
// Error(invalid_argument). The system lets go when the process ends, however it ends. Folders that were made
// here are removed again as long as they are empty: a run that cannot start leaves nothing behind.
class RunLock {
 public:
  explicit RunLock(const std::string& directory);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  int fd_;
  std::vector<std::string> made_;  // innermost first
};

struct TrainSetup {
  std::unique_ptr<RunLock> lock;
  RunConfig config;
  TrainDataset dataset;
  std::optional<VocDataset> validation;
  ModelConfig model;
  HostTensors weights;                   // published units
  std::vector<LayerOrigin> origins;      // of a new run
  std::optional<Checkpoint> checkpoint;  // of a resumed one
  std::string checkpoint_path;
  std::vector<std::string> warnings;  // all of them to be told
};

// Holds the run's directory, then reads what the command names; its paths become absolute. A checkpoint that
// cannot be read is passed over for the one before, with a warning. Throws Error naming what is missing, does
// not fit or differs from the run to be resumed.
TrainSetup prepare(TrainCommand& command);

// RUN_DIR/config.json and RUN_DIR/run.json.
void write_run_files(const TrainCommand& command, const RunConfig& config);

}  // namespace frcnn
