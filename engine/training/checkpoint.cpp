#include "training/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "frcnn/error.h"
#include "graph/dtype.h"
#include "model_io/model_file.h"
#include "model_io/safetensors.h"
#include "model_io/train_config_json.h"

namespace frcnn {
namespace {

using Json = nlohmann::ordered_json;

constexpr int checkpoint_version = 1;
constexpr const char* prefix = "checkpoint-";
constexpr const char* suffix = ".safetensors";

std::vector<std::int64_t> dims(const Shape& shape) {
  return {shape.dim.begin(), shape.dim.begin() + shape.rank};
}

std::vector<StoredTensor> stored(const Model& model) {
  std::vector<StoredTensor> tensors;
  for (const auto& [name, weight] : model.weights.all())
    tensors.push_back(
        {name, weight.view.dtype, dims(weight.view.shape), weight.view.data, weight.view.bytes()});
  return tensors;
}

Json to_json(const BestScore& best) {
  return {{"set", best.set},
          {"metric", best.metric},
          {"evaluated_step", best.evaluated_step},
          {"step", best.step},
          {"map", best.map ? Json(*best.map) : Json(nullptr)}};
}

BestScore best_from(const Json& json) {
  BestScore best{json.at("set").get<std::string>(),
                 json.at("metric").get<std::string>(),
                 json.at("evaluated_step").get<std::int64_t>(),
                 json.at("step").get<std::int64_t>(),
                 {}};
  if (!json.at("map").is_null()) best.map = json.at("map").get<double>();
  return best;
}

std::string about(const Checkpoint& checkpoint) {
  const Json json{{"version", checkpoint_version},
                  {"step", checkpoint.position.step},
                  {"batch", checkpoint.position.batch},
                  {"seconds", checkpoint.position.seconds},
                  {"best", to_json(checkpoint.best)},
                  {"data_fingerprint", fmt::format("{:016x}", checkpoint.data_fingerprint)},
                  {"device", checkpoint.device.device},
                  {"precision", checkpoint.device.precision},
                  {"threads", checkpoint.device.threads},
                  {"algo", checkpoint.device.algo},
                  {"config", Json::parse(run_config_to_json(checkpoint.config))}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void read_about(const std::string& text, const std::string& path, Checkpoint& checkpoint) {
  try {
    const Json json = Json::parse(text);
    if (json.at("version").get<int>() != checkpoint_version)
      throw Error(ErrorCode::unsupported,
                  fmt::format("{}: a checkpoint of version {}, this program knows {}", path,
                              json.at("version").get<int>(), checkpoint_version));
    checkpoint.position = {json.at("step").get<std::int64_t>(), json.at("batch").get<std::int64_t>(),
                           json.at("seconds").get<double>()};
    checkpoint.best = best_from(json.at("best"));
    checkpoint.data_fingerprint = std::stoull(json.at("data_fingerprint").get<std::string>(), nullptr, 16);
    checkpoint.device = {
        json.at("device").get<std::string>(), json.at("precision").get<std::string>(),
        json.at("threads").get<int>(),
        json.value("algo", std::string("ours"))};  // versions without the choice had no other
    overlay_run_config(checkpoint.config, json.at("config").dump(), path);
  } catch (const Json::exception& error) {
    throw Error(ErrorCode::bad_file,
                fmt::format("{}: its training record is damaged: {}", path, error.what()));
  } catch (const std::logic_error&) {  // stoull
    throw Error(ErrorCode::bad_file,
                fmt::format("{}: its training record is damaged: data_fingerprint", path));
  }
  if (checkpoint.position.step < 0 || checkpoint.position.batch < checkpoint.position.step)
    throw Error(ErrorCode::bad_file, fmt::format("{}: its training record is damaged: step {}, batch {}",
                                                 path, checkpoint.position.step, checkpoint.position.batch));
}

}  // namespace

void write_checkpoint(const std::string& path, const Checkpoint& checkpoint, const Model& deployed) {
  std::vector<StoredTensor> tensors = stored(deployed);
  check_model(deployed.config, tensors, path);
  for (const auto& [name, tensor] : checkpoint.state)
    tensors.push_back({training_tensor_prefix + name, DType::f32, dims(tensor.shape), tensor.data.data(),
                       tensor.data.size() * sizeof(float)});
  write_safetensors(path, tensors,
                    {{"format", "frcnn"},
                     {model_metadata_key, config_to_json(deployed.config)},
                     {training_metadata_key, about(checkpoint)}});
}

void write_deployed(const std::string& path, const Model& deployed) {
  save_model(path, deployed.config, stored(deployed));
}

Checkpoint read_checkpoint(const std::string& path) {
  const auto file = SafetensorsFile::open(path);
  const auto record = file->metadata().find(training_metadata_key);
  const auto model = file->metadata().find(model_metadata_key);
  if (record == file->metadata().end() || model == file->metadata().end())
    throw Error(ErrorCode::bad_model, path + ": this is not a checkpoint of a training run");
  Checkpoint checkpoint;
  read_about(record->second, path, checkpoint);
  checkpoint.model = config_from_json(model->second, path);
  checkpoint.classes = checkpoint.model.classes;
  const std::string start = training_tensor_prefix;
  for (const StoredTensor& stored : file->tensors()) {
    if (stored.name.rfind(start, 0) != 0) continue;
    if (stored.shape.size() > 4 || stored.dtype != DType::f32)
      throw Error(ErrorCode::bad_file, fmt::format("{}: {} is not of f32 and at most four dimensions", path,
                                                   printable(stored.name)));
    HostTensor tensor;
    tensor.shape.rank = static_cast<int>(stored.shape.size());
    std::copy(stored.shape.begin(), stored.shape.end(), tensor.shape.dim.begin());
    tensor.data.resize(stored.bytes / sizeof(float));
    to_f32(stored.data, stored.dtype, tensor.data.size(), tensor.data.data());
    checkpoint.state.emplace(stored.name.substr(start.size()), std::move(tensor));
  }
  return checkpoint;
}

void check_same_run(const Checkpoint& checkpoint, const std::string& path, const RunConfig& config,
                    const ModelConfig& model, std::uint64_t data_fingerprint) {
  RunConfig comparable = config;
  const bool longer =
      config.train.solver.policy == LrPolicy::step && config.train.iterations >= checkpoint.position.step;
  comparable.data.broken_images = checkpoint.config.data.broken_images;
  if (longer) comparable.train.iterations = checkpoint.config.train.iterations;
  std::vector<std::string> differences = run_config_differences(comparable, checkpoint.config);
  if (differences.empty() && config_to_json(model) != config_to_json(checkpoint.model))
    differences.push_back(model.classes == checkpoint.model.classes
                              ? "the detector's conventions: " + config_to_json(model) + " against " +
                                    config_to_json(checkpoint.model)
                              : fmt::format("the classes: {} of them against {}, or other names",
                                            model.classes.size() - 1, checkpoint.model.classes.size() - 1));
  if (differences.empty() && data_fingerprint != checkpoint.data_fingerprint)
    differences.push_back("the training images, their order or their objects: they have changed since");
  if (differences.empty()) return;
  std::string message =
      path +
      ": belongs to another run and cannot be resumed with this one; what differs (here against there):";
  for (const std::string& one : differences) message += "\n  " + one;
  throw Error(ErrorCode::invalid_argument, message);
}

std::string checkpoint_path(const std::string& run_directory, std::int64_t step) {
  return fmt::format("{}/{}{}{}", run_directory, prefix, step, suffix);
}

std::vector<std::pair<std::int64_t, std::string>> find_checkpoints(const std::string& run_directory) {
  std::vector<std::pair<std::int64_t, std::string>> found;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(run_directory, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind(prefix, 0) != 0) continue;
    std::int64_t step = 0;
    const char* const digits = name.data() + std::string_view(prefix).size();
    const auto [end, error] = std::from_chars(digits, name.data() + name.size(), step);
    if (error == std::errc() && std::string_view(end) == suffix)
      found.emplace_back(step, entry.path().string());
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace frcnn
