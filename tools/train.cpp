// `frcnn train`: a detector learns from a dataset.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>

#include "commands.h"
#include "counted.h"
#include "dataset_options.h"
#include "frcnn/error.h"
#include "train_display.h"
#include "train_setup.h"
#include "training/evaluate.h"
#include "training/presets.h"
#include "training/trainer.h"

namespace frcnn {
namespace {

constexpr const char* train_help =
    "Examples:\n"
    "  frcnn train --preset bccd --data BCCD --train-set trainval --val-set test --out run\n"
    "  frcnn train --preset small-data --init vgg16.safetensors --data cells --train-set train --val-set val "
    "--out run\n"
    "  frcnn train --arch vgg16 --init imagenet.safetensors --data VOC2007 --train-set trainval --out run "
    "--set solver.base_lr=0.002\n"
    "  frcnn train --resume --out run\n"
    "\n"
    "RUN_DIR gets config.json (every hyper-parameter; --config reads it), log.jsonl, loss.csv, map.csv, "
    "loss.svg, map.svg,\n"
    "checkpoint-<update>.safetensors, last.safetensors and best.safetensors (by mAP on --val-set); all "
    "models are ready for\n"
    "`frcnn detect`. Ctrl-C finishes the update, saves, and --resume goes on bit for bit. docs/training.md "
    "explains presets and\n"
    "keys. `frcnn data check` finds mistakes in a dataset beforehand.";

std::atomic<int> stop_signal{0};  // set by a handler, on whichever thread the system chose
static_assert(std::atomic<int>::is_always_lock_free);

void on_signal(int signal) {
  if (stop_signal.exchange(signal) == 0) {
    const int error = errno;  // of what was interrupted
    // Who reads our output, `tee` for one, may have got the same signal and be gone: that must not end the
    // run unsaved.
    struct sigaction ignore {};
    ignore.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &ignore, nullptr);
    // An update of a large network takes a while. write() is what a handler may call.
    static constexpr char answer[] =
        "\nfrcnn: finishing what is at hand, then saving; once more ends at once and saves nothing\n";
    [[maybe_unused]] const auto written = write(STDERR_FILENO, answer, sizeof answer - 1);
    errno = error;
    return;
  }
  struct sigaction standard {};  // asked twice: at once
  standard.sa_handler = SIG_DFL;
  sigaction(signal, &standard, nullptr);
  raise(signal);
}

// SIGINT and SIGTERM ask the run to stop while this lives.
class StopSignals {
 public:
  StopSignals() {
    struct sigaction action {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, &interrupt_);
    sigaction(SIGTERM, &action, &terminate_);
  }
  ~StopSignals() {
    sigaction(SIGINT, &interrupt_, nullptr);
    sigaction(SIGTERM, &terminate_, nullptr);
  }
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

 private:
  struct sigaction interrupt_ {
  }, terminate_{};
};

void warn(const std::vector<std::string>& warnings) {
  constexpr std::size_t shown = 5;
  for (std::size_t i = 0; i < std::min(shown, warnings.size()); ++i)
    fmt::print(stderr, "frcnn: warning: {}\n", warnings[i]);
  if (warnings.size() > shown)
    fmt::print(stderr, "frcnn: warning: {} more like these; `frcnn data check` lists them\n",
               warnings.size() - shown);
}

std::string first_few(const std::vector<std::string>& names) {
  constexpr std::size_t shown = 5;
  const auto last = names.begin() + static_cast<std::ptrdiff_t>(std::min(shown, names.size()));
  const std::string text = fmt::format("{}", fmt::join(names.begin(), last, ", "));
  return names.size() > shown ? fmt::format("{} and {} more", text, names.size() - shown) : text;
}

std::string origin_text(const LayerOrigin& origin) {
  switch (origin.from) {
    case LayerOrigin::From::model:
      return "from the model";
    case LayerOrigin::From::classes:
      if (origin.fresh_classes.empty()) return "from the model, rows by the name of the class";
      return fmt::format("{} of {} classes from the model, {} fresh", origin.known_classes,
                         static_cast<std::size_t>(origin.known_classes) + origin.fresh_classes.size(),
                         first_few(origin.fresh_classes));
    case LayerOrigin::From::strangers:
      return "fresh: the model knows none of the classes";
    case LayerOrigin::From::fresh:
      return "fresh";
    case LayerOrigin::From::misfit:
      return fmt::format("fresh: the model's is {}", to_string(origin.model_shape));
    case LayerOrigin::From::unused:
      return fmt::format("the model's {} is not used", to_string(origin.model_shape));
  }
  return {};
}

void print_origins(const std::vector<LayerOrigin>& origins, const std::string& init) {
  if (origins.empty()) return;
  if (init.empty()) {
    fmt::print("All {} layers start from random weights.\n", origins.size());
    return;
  }
  fmt::print("Weights of {}:\n", init);
  std::size_t width = 0;
  for (const LayerOrigin& one : origins) width = std::max(width, one.name.size());
  for (const LayerOrigin& one : origins)
    fmt::print("  {:<{}}  {:<16}  {}\n", one.name, width, one.shape.rank ? to_string(one.shape) : "-",
               origin_text(one));
}

// On the CPU no thread given means all, and no choice of kernels is there; elsewhere nothing depends on
// threads.
RunDevice run_device(const Device& device, const DeviceOptions& options) {
  RunDevice run{device.name(), std::string(name_of(device.precision()))};
  if (!device.is_host())
    run.algo = options.algo;
  else if (options.threads == 0)
    run.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  else
    run.threads = options.threads;
  return run;
}

std::string device_text(const RunDevice& run) {
  return run.threads > 0
             ? fmt::format("{} in {} with {}", run.device, run.precision, counted(run.threads, "thread"))
             : fmt::format("{} in {} with --algo {}", run.device, run.precision, run.algo);
}

std::string gib(double bytes) {
  return bytes < (1 << 30) ? fmt::format("{:.0f} MiB", bytes / (1 << 20))
                           : fmt::format("{:.2f} GiB", bytes / (1 << 30));
}

double available_memory() {
  std::ifstream in("/proc/meminfo");
  for (std::string line; std::getline(in, line);)
    if (std::istringstream text(line); line.rfind("MemAvailable:", 0) == 0) {
      std::string key;
      double kib = 0;
      if (text >> key >> kib) return kib * 1024;
    }
  return 0;
}

// Largest image and most objects of the data.
TrainLimits limits_of(const TrainSetup& setup) {
  TrainLimits limits{1, 1};
  for (const TrainEntry& entry : setup.dataset.entries) {
    limits.image_pixels = std::max(limits.image_pixels, std::int64_t{entry.width} * entry.height);
    limits.boxes = std::max(limits.boxes, static_cast<std::int64_t>(entry.objects.size()));
  }
  return limits;
}

// Decoded images that wait for their turn, at most.
double loader_bytes(const LoaderOptions& options, const TrainLimits& limits, std::int64_t images_per_update) {
  const double batch = 3.0 * static_cast<double>(limits.image_pixels * images_per_update);
  return std::min(static_cast<double>(options.max_queued_bytes) + options.threads * batch,
                  (2.0 * options.threads + 2) * batch);
}

void print_memory(const TrainSetup& setup, const std::shared_ptr<Device>& device, const TrainLimits& limits,
                  double parameters, const LoaderOptions& loader) {
  const TrainConfig& train = setup.config.train;
  const auto network =
      static_cast<double>(TrainNetwork::planned_bytes(setup.model, setup.weights, train, device, limits));
  // Weights as given, and while saving a copy of the state and of the model.
  const double copies = parameters * sizeof(float) * (2 + 3 + 1);
  const auto evaluation =
      setup.validation
          ? static_cast<double>(evaluation_bytes(setup.model, setup.weights, device, *setup.validation))
          : 0.0;
  const double images = loader_bytes(loader, limits, train.solver.iter_size),
               total = network + copies + evaluation + images, available = available_memory();
  fmt::print(
      "Memory: about {} for the network, {} for copies of its weights, {} for evaluation, {} for images\n",
      gib(network), gib(copies), gib(evaluation), gib(images));
  if (device->is_host() && available > 0 && total > available)
    fmt::print(stderr,
               "frcnn: warning: about {} are needed, {} are free: expect the run to be killed or to crawl\n",
               gib(total), gib(available));
}

void print_plan(const TrainSetup& setup, const TrainCommand& command, const std::shared_ptr<Device>& device,
                const TrainLimits& limits, const TrainerOptions& options) {
  const RunConfig& config = setup.config;
  fmt::print("{} {}: {}, {} of {} class{} ({})\n", command.data, command.train_set,
             counted(setup.dataset.entries.size(), "image"), counted(setup.dataset.objects, "object"),
             setup.dataset.classes.size() - 1, setup.dataset.classes.size() == 2 ? "" : "es",
             fmt::join(setup.dataset.classes.begin() + 1, setup.dataset.classes.end(), ", "));
  std::int64_t parameters = 0;
  for (const auto& [name, tensor] : setup.weights) parameters += tensor.shape.elements();
  fmt::print("{}: {} parameters; preset {}, {} of {}, seed {}, on {} in {}\n", setup.model.name, parameters,
             config.train.preset, counted(config.train.iterations, "update"),
             counted(config.train.solver.iter_size, "image"), config.train.seed, options.device.device,
             options.device.precision);
  print_memory(setup, device, limits, static_cast<double>(parameters), options.loader);
}

std::string scores_text(const EvaluationRecord& record, bool best) {
  std::string text =
      fmt::format("{}: mAP {}", record.step, record.map ? fmt::format("{:.4f}", *record.map) : "-");
  for (const VocClassScore& one : record.classes)
    if (record.classes.size() <= 8)
      text += fmt::format("  {} {}", one.name, one.ap ? fmt::format("{:.4f}", *one.ap) : "-");
  return text + fmt::format("  ({:.0f} s){}", record.seconds, best ? "  best so far" : "");
}

void check_device(const TrainSetup& setup, const RunDevice& device) {
  if (!setup.checkpoint) return;
  const std::string was = device_text(setup.checkpoint->device), is = device_text(device);
  if (was != is)
    fmt::print(stderr, "frcnn: warning: the run was on {}, it goes on on {}: not bit for bit\n", was, is);
}

TrainerOptions trainer_options(const TrainCommand& command, const Device& device) {
  TrainerOptions options;
  options.run_directory = command.out;
  options.checkpoint_every = command.checkpoint_every;
  options.keep_checkpoints = command.keep_checkpoints;
  options.evaluate_every = command.evaluate_every < 0 ? command.checkpoint_every : command.evaluate_every;
  options.evaluation_set = command.val_set;
  options.metric = command.metric;
  options.device = run_device(device, command.device);
  options.loader.threads = command.loader_threads;
  return options;
}

int train(TrainCommand command) {
  const StopSignals signals;
  TrainSetup setup = prepare(command);
  for (const std::string& warning : setup.warnings) fmt::print(stderr, "frcnn: warning: {}\n", warning);
  warn(setup.dataset.warnings);
  DetectorOptions where = detector_options(command.device);
  std::shared_ptr<Device> device = open_device(where);
  if (command.device.precision == "auto" && !device->is_host()) {  // a GPU does not train in 16 bits
    where.precision = Precision::tf32;
    device = open_device(where, true);
  }
  const TrainerOptions options = trainer_options(command, *device);
  const TrainLimits limits = limits_of(setup);
  print_origins(setup.origins, command.init);
  print_plan(setup, command, device, limits, options);
  check_device(setup, options.device);
  std::fflush(stdout);
  TrainNetwork network(setup.model, setup.weights, setup.config.train, device, limits);
  setup.weights.clear();
  write_run_files(command, setup.config);

  const std::int64_t iterations = setup.config.train.iterations,
                     first = setup.checkpoint ? setup.checkpoint->position.step : 0;
  if (setup.checkpoint)
    fmt::print("Going on after update {} from {}\n", first, setup.checkpoint_path);
  else if (command.resume)
    fmt::print("There is no checkpoint yet: starting from the beginning\n");
  TrainDisplay display(first, iterations, std::clamp<std::int64_t>(iterations / 20, 1, 100));
  const auto stop_wanted = [] { return stop_signal != 0; };
  TrainerHooks hooks;
  hooks.updated = [&](const UpdateRecord& record) { display.updated(record); };
  hooks.stop_wanted = stop_wanted;
  if (setup.validation)
    hooks.evaluate = [&](const std::shared_ptr<const Model>& model) {
      EvaluateOptions how;
      how.metric = command.metric == "voc07" ? VocMetric::eleven_point : VocMetric::area;
      how.go_on = [&](std::size_t done, std::size_t total) {
        display.evaluating(done, total);
        return !stop_wanted();
      };
      if (setup.config.data.broken_images == BrokenImages::skip)
        how.skipped = [&](const std::string& message) {
          display.warn("left out of the evaluation: " + message);
        };
      return evaluate_model(model, device, *setup.validation, how);
    };
  hooks.evaluated = [&](const EvaluationRecord& record, bool best) {
    display.say(scores_text(record, best));
  };

  NetworkLearner learner(network);
  Trainer trainer(learner, setup.dataset, setup.config, options, hooks,
                  setup.checkpoint ? &*setup.checkpoint : nullptr);
  setup.checkpoint.reset();
  const Trainer::End end = trainer.run();
  display.clear();
  const RunPosition& position = trainer.position();
  if (end == Trainer::End::stopped) {
    fmt::print("Stopped after update {} of {}; saved as {}\nGo on with: frcnn train --resume --out {}\n",
               position.step, iterations, trainer.last_checkpoint(), command.out);
    return 128 + stop_signal;
  }
  fmt::print("{} in {}: {}/last.safetensors\n", counted(position.step, "update"),
             duration_text(position.seconds), command.out);
  if (trainer.best_map())
    fmt::print("best mAP {:.4f}: {}/best.safetensors\n", *trainer.best_map(), command.out);
  return exit_ok;
}

void add_data_options(CLI::App& command, TrainCommand& options) {
  const std::string group = "What it learns from";
  command.add_option("--data", options.data, "The dataset's directory, in the layout of PASCAL VOC")
      ->type_name("[voc:]DIR")
      ->group(group);
  command
      .add_option("--train-set", options.train_set,
                  "The image set to learn from: ImageSets/Main/NAME.txt; several joined with +")
      ->type_name("NAME")
      ->group(group);
  command
      .add_option("--val-set", options.val_set,
                  "The image set to evaluate on; without it there is no best.safetensors")
      ->type_name("NAME")
      ->group(group);
  command
      .add_option("--classes", options.classes,
                  "voc, coco, or a file with one name per line; the names of the annotations if not given")
      ->type_name("voc|coco|FILE")
      ->group(group);
  command
      .add_option(
          "--init", options.init,
          "A model to start from, with or without a detection head; layers that do not fit start fresh")
      ->type_name("MODEL")
      ->group(group);
}

void add_config_options(CLI::App& command, TrainCommand& options) {
  const std::string group = "How it learns";
  std::vector<std::string> archs = architecture_names();
  archs.emplace_back(arch_of_init);
  command
      .add_option("--arch", options.arch,
                  "The network: " + fmt::format("{}", fmt::join(archs, ", ")) +
                      " (the layers of --init, the default with it); else the preset's")
      ->check(CLI::IsMember(archs).description(""))
      ->type_name("NAME")
      ->group(group);
  command
      .add_option("--preset", options.preset, fmt::format("The recipe: {}", fmt::join(preset_names(), ", ")))
      ->check(CLI::IsMember(preset_names()).description(""))
      ->type_name("NAME")
      ->group(group);
  command.add_option("--config", options.config, "A JSON file of hyper-parameters, laid over the preset")
      ->type_name("FILE")
      ->group(group);
  command
      .add_option(
          "--set", options.sets,
          "One hyper-parameter, e.g. --set solver.base_lr=0.002; may be repeated. An unknown key is answered "
          "with the list of keys")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false)
      ->check(CLI::Validator(
          [](const std::string& set) {
            return set.find('=') == std::string::npos || set.front() == '=' ? "expected KEY=VALUE, got " + set
                                                                            : std::string();
          },
          ""))
      ->group(group);
  command
      .add_option("--scheme", options.scheme,
                  "How RPN and head are trained: joint (approximate joint training)")
      ->check(CLI::IsMember({"joint"}).description(""))
      ->type_name("NAME")
      ->capture_default_str()
      ->group(group);
  command.add_option("--iters", options.iterations, "Updates of the weights")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1'000'000'000}).description(""))
      ->type_name("N")
      ->group(group);
  command.add_option("--seed", options.seed, "Everything random follows from it")
      ->check(CLI::Range(std::uint64_t{0}, (std::uint64_t{1} << 53) - 1).description(""))
      ->type_name("N")
      ->group(group);
}

void add_run_options(CLI::App& command, TrainCommand& options) {
  const std::string group = "What it writes";
  const auto count = CLI::Range(std::int64_t{0}, std::int64_t{1'000'000'000}).description("");
  command.add_option("--out", options.out, "The run's directory")
      ->required()
      ->type_name("RUN_DIR")
      ->group(group);
  command
      .add_flag("--resume", options.resume,
                "Go on with the run in RUN_DIR; options that are not given are as they were")
      ->group(group);
  command
      .add_option("--checkpoint-every", options.checkpoint_every,
                  "Updates between checkpoints; 0: only at the end")
      ->check(count)
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--keep-checkpoints", options.keep_checkpoints, "Newest checkpoints that are kept; 0: all")
      ->check(count)
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--evaluate-every", options.evaluate_every,
                  "Updates between evaluations on --val-set; 0: only at the end; with each checkpoint "
                  "if not given")
      ->check(count)
      ->type_name("N")
      ->group(group);
  command
      .add_option("--metric", options.metric,
                  "voc07: 11 points, as for VOC2007; voc: area, as from VOC2010 on")
      ->check(CLI::IsMember({"voc07", "voc"}).description(""))
      ->type_name("NAME")
      ->capture_default_str()
      ->group(group);
  command.add_option("--loader-threads", options.loader_threads, "Threads that read and decode images")
      ->check(CLI::Range(1, 256).description(""))
      ->type_name("N")
      ->capture_default_str()
      ->group("Where it computes");
}

}  // namespace

void add_train(CLI::App& app, Action& action) {
  auto options = std::make_shared<TrainCommand>();
  CLI::App* command = app.add_subcommand("train", "Train a detector on a dataset");
  add_data_options(*command, *options);
  add_config_options(*command, *options);
  add_run_options(*command, *options);
  add_device_options(*command, options->device);
  command->footer(train_help);
  command->callback([&action, options, command] {
    if (!options->resume && (options->data.empty() || options->train_set.empty()))
      throw CLI::RequiredError(options->data.empty() ? "--data (or --resume)" : "--train-set (or --resume)");
    for (const CLI::Option* option : command->get_options()) {
      if (option->count() == 0) continue;
      std::string key = option->get_name().substr(2);
      std::replace(key.begin(), key.end(), '-', '_');
      options->given.insert(key);
    }
    action = [options] { return train(*options); };
  });
}

}  // namespace frcnn
