// RunConfig as JSON and as `key=value`: one table of fields serves both (docs/training.md lists them).
#pragma once

#include <string>
#include <vector>

#include "detector/config.h"
#include "training/run_config.h"

namespace frcnn {

// Every field, one per line.
std::string run_config_to_json(const RunConfig& config);

// What `json` says replaces what `config` has; fields it does not mention stay. Throws Error(bad_file) or
// Error(invalid_argument) "SOURCE:LINE: solver.base_lr: must be ..." for an unknown key or a value that makes
// no sense; config is then as before.
void overlay_run_config(RunConfig& config, const std::string& json, const std::string& source);

// The preset and architecture that a document names ("" where it does not): what the other fields are laid
// over.
struct RunConfigBase {
  std::string preset, arch;
  int preset_line = 1;
};
RunConfigBase run_config_base(const std::string& json, const std::string& source);

// One `key=value` of `--set`, e.g. "solver.lr_steps=30000,40000" or "model.set.anchor_scales=4,8,16,32".
// Throws Error(invalid_argument) naming the key and what it must be; an unknown key is answered with the keys
// there are.
void set_run_config(RunConfig& config, const std::string& key, const std::string& value);

// set_config() for what RunConfig's model.set holds; its complaints begin with "model.set".
void set_convention(ModelConfig& config, const std::string& key, const std::string& value);

// Fields that are sound alone can contradict each other. Throws Error(invalid_argument) naming both.
void check_together(const RunConfig& config);

// One line for each field that differs: "solver.base_lr: 0.001 against 0.006".
std::vector<std::string> run_config_differences(const RunConfig& a, const RunConfig& b);

}  // namespace frcnn
