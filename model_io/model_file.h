// The native model file: safetensors whose metadata holds the model's configuration (docs/model_format.md).
#pragma once

#include <memory>
#include <span>
#include <string>

#include "detector/model.h"
#include "model_io/safetensors.h"

namespace frcnn {

// Maps the file; weights are read when a device packs them. Throws Error(io), Error(bad_file) or Error(bad_model) that
// names the file and what is wrong (no metadata: says to run `frcnn convert`).
std::shared_ptr<const Model> load_model(const std::string& path);

// Checks first that config and tensors make a model (check_model), then writes.
void save_model(const std::string& path, const ModelConfig& config, std::span<const StoredTensor> tensors);

// Every weight that the configuration needs is there with a fitting shape, and nothing else is. Error(bad_model)
// lists all missing, unknown and mis-shaped tensors.
void check_model(const ModelConfig& config, std::span<const StoredTensor> tensors, const std::string& source);

std::string config_to_json(const ModelConfig& config);                     // canonical, one line
ModelConfig config_from_json(const std::string& json, const std::string& source);
// One `key=value` of `--set`; keys are the JSON's. Throws Error(invalid_argument) naming the key and the keys there are.
void set_config(ModelConfig& config, const std::string& key, const std::string& value);

}  // namespace frcnn
