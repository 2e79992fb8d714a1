// The native model file: safetensors whose metadata holds the model's configuration (docs/model_format.md).
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "detector/model.h"
#include "model_io/safetensors.h"

namespace frcnn {

// Entries of the metadata, and what names of a checkpoint's tensors begin with that are not the model's
// (engine/training/checkpoint.h). load_model passes those over where the file has the training entry.
inline constexpr const char* model_metadata_key = "frcnn";
inline constexpr const char* training_metadata_key = "frcnn_training";
inline constexpr const char* training_tensor_prefix = "training/";

// Maps the file; weights are read when a device packs them. Throws Error(io), Error(bad_file),
// Error(bad_model) or Error(unsupported: a newer format_version) that names the file and what is wrong (no
// metadata: says to run `frcnn convert`).
std::shared_ptr<const Model> load_model(const std::string& path);

// A model file's tensors without those that only a checkpoint has, in file order.
std::vector<StoredTensor> model_tensors(const SafetensorsFile& file);

// Checks first that config and tensors make a model (check_model), then writes.
void save_model(const std::string& path, const ModelConfig& config, std::span<const StoredTensor> tensors);

// Every weight that the configuration needs is there with a fitting shape, and nothing else is.
// Error(bad_model) lists all missing, unknown and mis-shaped tensors.
void check_model(const ModelConfig& config, std::span<const StoredTensor> tensors, const std::string& source);

// Canonical, one line: every field in the order of ModelConfig. config_from_json wants every field and
// nothing else, and checks ranges, names and classes: Error(bad_file) where it is not such a document,
// Error(bad_model) for a value.
std::string config_to_json(const ModelConfig& config);
ModelConfig config_from_json(const std::string& json, const std::string& source);
// One `key=value` of `--set`; keys are the JSON's, lists are separated by commas (docs/model_format.md).
// Checks this value only; config_from_json and check_model see all together. Throws Error(invalid_argument)
// naming the key, what it must be or the keys there are; config is then as before.
void set_config(ModelConfig& config, const std::string& key, const std::string& value);

}  // namespace frcnn
