#include "train_setup.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <fmt/ranges.h>
#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>

#include "counted.h"
#include "dataset_options.h"
#include "frcnn/error.h"
#include "graph/dtype.h"
#include "model_io/atomic_file.h"
#include "model_io/class_list.h"
#include "model_io/model_file.h"
#include "model_io/train_config_json.h"
#include "model_io/whole_file.h"
#include "training/loader.h"
#include "training/presets.h"

namespace frcnn {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr std::size_t max_text_bytes = 4u << 20;

[[noreturn]] void fail(const std::string& what) { throw Error(ErrorCode::invalid_argument, what); }

// Calls f(key, value) for everything that run.json holds.
template <typename Command, typename F>
void for_each_setting(Command& command, const F& f) {
  f("data", command.data);
  f("train_set", command.train_set);
  f("val_set", command.val_set);
  f("init", command.init);
  f("classes", command.classes);
  f("scheme", command.scheme);
  f("metric", command.metric);
  f("checkpoint_every", command.checkpoint_every);
  f("keep_checkpoints", command.keep_checkpoints);
  f("evaluate_every", command.evaluate_every);
  f("loader_threads", command.loader_threads);
  f("device", command.device.device);
  f("precision", command.device.precision);
  f("threads", command.device.threads);
  f("algo", command.device.algo);
  f("algo_cache", command.device.algo_cache);
  f("tune", command.device.tune);
}

// Whether a resumed run has what run.json says of this setting. Kernels belong to the device, and what is
// measured to the choice among them.
bool as_recorded(const TrainCommand& command, std::string_view key) {
  if (command.given.count(std::string(key))) return false;
  const bool measuring = key == "algo_cache" || key == "tune";
  if ((measuring || key == "algo") && command.given.count("device")) return false;
  return !measuring || !command.given.count("algo");
}

// Settings that older versions did not have.
bool is_new(std::string_view key) { return key == "algo" || key == "algo_cache" || key == "tune"; }

std::string run_file(const TrainCommand& command) { return command.out + "/run.json"; }
std::string config_file(const TrainCommand& command) { return command.out + "/config.json"; }

// A run may be resumed from another folder.
void make_absolute(TrainCommand& command) {
  const auto absolute = [](std::string& path) {
    if (!path.empty()) path = fs::absolute(path).lexically_normal().string();
  };
  command.data = voc_directory(command.data);
  absolute(command.data);
  absolute(command.init);
  absolute(command.device.algo_cache);
  if (command.classes != "voc" && command.classes != "coco") absolute(command.classes);
}

void read_settings(TrainCommand& command) {
  const std::string text = read_whole_file(run_file(command), max_text_bytes);
  try {
    const Json json = Json::parse(text);
    const auto init = json.at("init").get<std::string>();
    json.at("train_set").get_to(command.recorded_set);
    if (command.given.count("init") && command.init != init)
      fail(
          fmt::format("{}: the run started from {}, not from {}; a resumed one takes its weights from its "
                      "checkpoint",
                      command.out, init.empty() ? "random weights" : init, command.init));
    for_each_setting(command, [&](const char* key, auto& value) {
      if (as_recorded(command, key) && (json.contains(key) || !is_new(key))) json.at(key).get_to(value);
    });
    const std::string& algo = command.device.algo;
    if (std::find(algo_names.begin(), algo_names.end(), algo) == algo_names.end())
      throw Error(ErrorCode::bad_file, fmt::format("{}: algo: expected one of {}, got {}", run_file(command),
                                                   fmt::join(algo_names, ", "), algo));
  } catch (const Json::exception& error) {
    throw Error(ErrorCode::bad_file, fmt::format("{}: {}", run_file(command), error.what()));
  }
}

// What a file says of its preset and architecture. A preset's name is a label for other programs, so it has
// to be one.
RunConfigBase base_of_file(const std::string& file) {
  RunConfigBase base = run_config_base(read_whole_file(file, max_text_bytes), file);
  const std::vector<std::string> names = preset_names();
  if (!base.preset.empty() && std::find(names.begin(), names.end(), base.preset) == names.end())
    fail(fmt::format("{}:{}: preset: there is no preset {}; there are {}", file, base.preset_line,
                     base.preset, fmt::join(names, ", ")));
  return base;
}

void overlay_options(RunConfig& config, const TrainCommand& command) {
  if (!command.config.empty()) {
    const std::string preset = config.train.preset, arch = config.model.arch;
    const RunConfigBase base = base_of_file(command.config);
    if (!base.preset.empty() && base.preset != preset)
      fail(fmt::format("{}:{}: preset: the file is laid over {}, but {} {}; leave out one of the two",
                       command.config, base.preset_line, base.preset,
                       command.preset.empty() ? "the run is one of" : "--preset says", preset));
    overlay_run_config(config, read_whole_file(command.config, max_text_bytes), command.config);
    config.model.arch = arch;  // chosen before: the command line has the last word
  }
  for (const std::string& set : command.sets) {
    const std::size_t equals = set.find('=');
    set_run_config(config, set.substr(0, equals), set.substr(equals + 1));
  }
  if (command.iterations) config.train.iterations = *command.iterations;
  if (command.seed) config.train.seed = *command.seed;
}

RunConfig new_config(const TrainCommand& command, const Model* init) {
  RunConfigBase base;
  if (!command.config.empty()) base = base_of_file(command.config);
  if (!command.preset.empty()) base.preset = command.preset;
  if (!command.arch.empty()) base.arch = command.arch;
  if (base.preset.empty()) base.preset = "py-faster-rcnn";
  if (base.arch.empty() && init) base.arch = arch_of_init;
  RunConfig config = preset(base.preset, base.arch, init ? &init->config : nullptr);
  overlay_options(config, command);
  check_together(config);
  return config;
}

// The configuration of the run to be resumed, with what the command line says on top: it must be the same in
// the end. Whether its numbers fit together is not asked again: what began before a rule was made may go on.
RunConfig resumed_config(RunConfig config, const TrainCommand& command) {
  if (!command.preset.empty()) config.train.preset = command.preset;
  if (!command.arch.empty()) config.model.arch = command.arch;
  overlay_options(config, command);
  return config;
}

HostTensors host_tensors(const Model& model) {
  HostTensors tensors;
  for (const auto& [name, weight] : model.weights.all()) {
    HostTensor tensor{weight.view.shape,
                      std::vector<float>(static_cast<std::size_t>(weight.view.shape.elements()))};
    to_f32(weight.view, tensor.data.data());
    tensors.emplace(name, std::move(tensor));
  }
  return tensors;
}

// Scores on images that were learned say nothing of others.
void warn_of_shared_images(const TrainCommand& command, TrainSetup& setup) {
  std::set<std::string> learned;
  for (const TrainEntry& entry : setup.dataset.entries) learned.insert(entry.name);
  std::size_t shared = 0;
  std::string first;
  for (const VocAnnotation& image : setup.validation->images)
    if (learned.count(image.id) && shared++ == 0) first = image.id;
  if (shared > 0)
    setup.warnings.push_back(fmt::format(
        "--val-set {} has {} of the {} to evaluate on in common with --train-set {}, the first is "
        "{}: its scores will be too good",
        command.val_set, shared, counted(setup.validation->images.size(), "image"), command.train_set,
        first));
}

void warn_of_warmup(TrainSetup& setup) {
  const TrainConfig& train = setup.config.train;
  if (train.solver.warmup > 0 && train.solver.warmup >= train.iterations)
    setup.warnings.push_back(
        fmt::format("the rate grows over the first {} (solver.warmup) and the run has {}: it ends before the "
                    "warm-up does; --set solver.warmup=N changes that",
                    counted(train.solver.warmup, "update"), train.iterations));
}

void read_data(const TrainCommand& command, const std::vector<std::string>& classes, TrainSetup& setup) {
  setup.dataset =
      make_train_dataset(read_voc_sets(command.data, command.train_set), classes, setup.config.data);
  if (command.val_set.empty()) return;
  setup.validation = read_voc_sets(command.data, command.val_set);
  warn_of_shared_images(command, setup);
  std::erase_if(setup.validation->images, [&](const VocAnnotation& image) {  // told now, not in an hour
    try {
      voc_image_path(command.data, image.id);
      return false;
    } catch (const Error& error) {
      if (setup.config.data.broken_images == BrokenImages::fatal) throw broken_image(error);
      setup.warnings.push_back(fmt::format("left out of the evaluation: {}", error.what()));
      return true;
    }
  });
}

// The newest of `checkpoints` (ascending) that can be read.
std::shared_ptr<const Model> read_newest(const std::vector<std::pair<std::int64_t, std::string>>& checkpoints,
                                         TrainSetup& setup) {
  for (std::size_t i = checkpoints.size(); i-- > 0;) {
    setup.checkpoint_path = checkpoints[i].second;
    try {
      setup.checkpoint = read_checkpoint(setup.checkpoint_path);
      return load_model(setup.checkpoint_path);
    } catch (const Error& error) {
      if (error.code() == ErrorCode::unsupported) throw;  // not damaged, but of another version
      if (i == 0)
        throw Error(error.code(),
                    fmt::format("{}; there is no older checkpoint: without this file --resume starts "
                                "from the beginning",
                                error.what()));
      setup.warnings.push_back(
          fmt::format("{}; going on from the older {}", error.what(), checkpoints[i - 1].second));
    }
  }
  return nullptr;
}

void resume(TrainCommand& command, const std::vector<std::pair<std::int64_t, std::string>>& checkpoints,
            TrainSetup& setup) {
  const auto model = read_newest(checkpoints, setup);
  setup.config = resumed_config(setup.checkpoint->config, command);
  const bool other_classes = command.given.count("classes") != 0;
  read_data(command, other_classes ? read_class_list(command.classes) : setup.checkpoint->classes, setup);
  setup.model = setup.checkpoint->model;
  setup.model.classes = setup.dataset.classes;
  try {
    check_same_run(*setup.checkpoint, setup.checkpoint_path, setup.config, setup.model,
                   setup.dataset.fingerprint);
  } catch (const Error& error) {
    if (command.train_set == command.recorded_set) throw;
    throw Error(error.code(), fmt::format("{}\n  --train-set names {}, the run learned from {}", error.what(),
                                          command.train_set, command.recorded_set));
  }
  setup.weights = host_tensors(*model);
}

void start(TrainCommand& command, TrainSetup& setup) {
  std::shared_ptr<const Model> init;
  if (!command.init.empty()) init = load_model(command.init);
  if (command.resume) {  // killed before its first checkpoint
    RunConfig config;
    base_of_file(config_file(command));
    overlay_run_config(config, read_whole_file(config_file(command), max_text_bytes), config_file(command));
    setup.config = resumed_config(config, command);
  } else {
    setup.config = new_config(command, init.get());
    if (!command.given.count("precision"))
      command.device.precision = preset_precision(setup.config.train.preset);
  }
  warn_of_warmup(setup);
  read_data(command, command.classes.empty() ? std::vector<std::string>{} : read_class_list(command.classes),
            setup);
  const NewDetector detector = new_detector(setup.config.model, setup.dataset.classes, init.get());
  setup.model = detector.config;
  UnitsConfig& units = setup.config.train.units;
  if (units.measure_input_offset)
    units.input_offset =
        measure_input_offset(setup.dataset, setup.model.pixel_mean, setup.config.data.broken_images);
  InitialWeights initial = initial_weights(detector, setup.config.train, init.get());
  setup.weights = std::move(initial.tensors);
  setup.origins = std::move(initial.origins);
}

}  // namespace

TrainSetup prepare(TrainCommand& command) {
  std::error_code none;
  if (command.resume && !fs::exists(run_file(command), none))
    fail(fmt::format("{}: there is no run to resume: {} is not there; start without --resume", command.out,
                     run_file(command)));
  make_absolute(command);
  TrainSetup setup;
  setup.lock = std::make_unique<RunLock>(command.out);
  const auto checkpoints = find_checkpoints(command.out);
  if (command.resume) {
    read_settings(command);
  } else if (!checkpoints.empty()) {
    fail(
        fmt::format("{}: there is a run in this directory already ({}); --resume goes on with it, or choose "
                    "another --out",
                    command.out, fs::path(checkpoints.back().second).filename().string()));
  }
  if (command.data.empty()) fail("where are the images? --data DIR is missing");
  if (command.train_set.empty()) fail("which images? --train-set NAME is missing");
  if (!checkpoints.empty())
    resume(command, checkpoints, setup);
  else
    start(command, setup);
  return setup;
}

RunLock::RunLock(const std::string& directory) {
  std::error_code error;
  for (fs::path folder = fs::absolute(directory).lexically_normal(); !fs::exists(folder, error);
       folder = folder.parent_path())
    made_.push_back(folder.string());
  if (fs::exists(directory, error) && !fs::is_directory(directory, error))
    throw Error(ErrorCode::io, fmt::format("{}: exists and is not a directory", directory));
  fs::create_directories(directory, error);
  if (error) throw Error(ErrorCode::io, fmt::format("{}: cannot be made: {}", directory, error.message()));
  fd_ = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd_ < 0)
    throw Error(ErrorCode::io,
                fmt::format("{}: cannot be opened: {}", directory, std::generic_category().message(errno)));
  // Some file systems have no locks: then nobody is kept out.
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    ::close(fd_);
    fail(fmt::format("{}: another process is training in this directory", directory));
  }
  remove_temporaries(directory);
}

RunLock::~RunLock() {
  std::error_code ignored;
  for (const std::string& folder : made_) fs::remove(folder, ignored);  // none that holds anything
  ::close(fd_);
}

void write_run_files(const TrainCommand& command, const RunConfig& config) {
  Json json;
  for_each_setting(command, [&](const char* key, const auto& value) { json[key] = value; });
  write_atomically(config_file(command), run_config_to_json(config));
  write_atomically(run_file(command), json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace frcnn
