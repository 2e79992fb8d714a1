// `frcnn bench`: how long a detector takes on this machine, and where.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "bench_run.h"
#include "commands.h"
#include "commit.h"
#include "device_options.h"
#include "frcnn/error.h"
#include "machine.h"
#include "model_io/atomic_file.h"
#include "model_io/model_file.h"
#include "random_model.h"

namespace frcnn {
namespace {

constexpr int schema_version = 1;
constexpr int longest_side = 32768;  // as in a model file

struct BenchOptions {
  std::string model, architecture, input, image, sizes, json, save_model;
  int batch = 1, iterations = 20, warmup = 3, sessions = 1;
  double seconds = 0;
  bool per_layer = false, step = false, on_device = false;
  DeviceOptions device;
};

constexpr const char* bench_help =
    "Examples:\n"
    "  frcnn bench --arch vgg16 --per-layer               VGG-16 with random weights, layer by layer\n"
    "  frcnn bench zf.safetensors --input 600x1000 --threads 2 --json zf.json\n"
    "  frcnn bench zf.safetensors --sizes random --concurrency 2\n"
    "\n"
    "An image is timed from its pixels in memory to its boxes; decoding a file is not. The first image of\n"
    "a size also plans that size, and the first of all touches memory for the first time: it is told apart,\n"
    "and warm-up images are not counted. Quantiles are nearest ranks. The time of loading begins with\n"
    "opening the file and ends when the detector is ready: configuration read, weights checked and packed.\n"
    "Layers are timed in runs of their own: on the CPU one by one, on a GPU among 20 of their kind that\n"
    "follow each other without waiting, so that small ones may find their inputs in a cache. A share is of\n"
    "the sum.\n"
    "With --sizes new every size is one that the session has not seen: it is asked for once, which plans\n"
    "it, and three times more. All times but known_ms are those of the first requests.\n"
    "With --batch N one image is N images detected by one call, in all that counts or times images; only\n"
    "the images per second, and what was found in the first image, are of single ones.";

struct Size {
  int height = 0, width = 0;
};

Size parse_size(const std::string& text) {
  Size size;
  const char* const end = text.data() + text.size();
  const auto height = std::from_chars(text.data(), end, size.height);
  const bool has_x =
      height.ec == std::errc() && height.ptr != end && (*height.ptr == 'x' || *height.ptr == 'X');
  const auto width = has_x ? std::from_chars(height.ptr + 1, end, size.width) : height;
  if (!has_x || width.ec != std::errc() || width.ptr != end || size.height < 1 || size.width < 1 ||
      size.height > longest_side || size.width > longest_side) {
    throw CLI::ValidationError("--input", "expected HEIGHTxWIDTH such as 600x1000, got " + text);
  }
  return size;
}

std::string default_image() { return std::string(FRCNN_SOURCE_DIR) + "/weights/images/BloodImage_00007.jpg"; }

Image read_picture(const BenchOptions& options) {
  if (!options.image.empty()) return read_image(options.image);
  try {
    return read_image(default_image());
  } catch (const Error& error) {
    throw Error(ErrorCode::io, fmt::format("{}; name a picture with --image", error.what()));
  }
}

// Bilinear, in whole numbers; a picture of the size asked for stays as it is.
Image resized(const Image& from, int height, int width) {
  if (from.height == height && from.width == width) return from;
  Image to{width, height,
           std::vector<std::uint8_t>(static_cast<std::size_t>(height) * static_cast<std::size_t>(width) * 3)};
  const auto position = [](int d, int dst, int src) {  // in 1/256 of a pixel, within the picture
    const std::int64_t at = ((2 * std::int64_t{d} + 1) * src * 128) / dst - 128;
    return std::clamp<std::int64_t>(at, 0, (std::int64_t{src} - 1) * 256);
  };
  for (int y = 0; y < height; ++y) {
    const std::int64_t v = position(y, height, from.height), y0 = v / 256,
                       y1 = std::min<std::int64_t>(y0 + 1, from.height - 1);
    for (int x = 0; x < width; ++x) {
      const std::int64_t u = position(x, width, from.width), x0 = u / 256,
                         x1 = std::min<std::int64_t>(x0 + 1, from.width - 1);
      for (std::int64_t c = 0; c < 3; ++c) {
        const auto level = [&](std::int64_t row, std::int64_t column) {
          return std::int64_t{from.bgr[static_cast<std::size_t>((row * from.width + column) * 3 + c)]};
        };
        const std::int64_t top = level(y0, x0) * (256 - u % 256) + level(y0, x1) * (u % 256);
        const std::int64_t bottom = level(y1, x0) * (256 - u % 256) + level(y1, x1) * (u % 256);
        to.bgr[static_cast<std::size_t>((std::int64_t{y} * width + x) * 3 + c)] =
            static_cast<std::uint8_t>((top * (256 - v % 256) + bottom * (v % 256) + 32768) >> 16);
      }
    }
  }
  return to;
}

// What a service sees under the scale rule: the shorter side is always the same, either side may be it.
std::vector<std::pair<int, int>> random_sizes(Size largest) {
  constexpr int count = 64;
  const auto [shorter, longer] = std::minmax({largest.height, largest.width});
  std::mt19937 random(1);  // its raw output is the same everywhere
  std::vector<std::pair<int, int>> sizes;
  for (int i = 0; i < count; ++i) {
    const int side = shorter + static_cast<int>(random() % static_cast<unsigned>(longer - shorter + 1));
    sizes.emplace_back(shorter, side);
    if (random() % 2 == 0) std::swap(sizes.back().first, sizes.back().second);
  }
  return sizes;
}

constexpr std::size_t known_requests = 3;  // of --sizes new, behind a size's first one

// First `before` times the largest one, then up to `count` others, each followed by its known_requests.
std::vector<std::pair<int, int>> new_sizes(Size largest, int before, int count) {
  const auto [shorter, longer] = std::minmax({largest.height, largest.width});
  std::vector<std::pair<int, int>> others;
  for (int side = shorter; side <= longer; ++side)
    for (const auto& size : {std::pair{shorter, side}, std::pair{side, shorter}})
      if (size != std::pair{largest.height, largest.width} && (others.empty() || others.back() != size))
        others.push_back(size);
  if (others.empty())
    throw Error(ErrorCode::invalid_argument, fmt::format("--sizes new: within {}x{} there is no other size",
                                                         largest.height, largest.width));
  std::mt19937 random(1);
  for (std::size_t i = others.size(); i > 1; --i) std::swap(others[i - 1], others[random() % i]);
  others.resize(std::min(others.size(), static_cast<std::size_t>(count)));
  std::vector<std::pair<int, int>> sizes(static_cast<std::size_t>(before), {largest.height, largest.width});
  for (const auto& size : others) sizes.insert(sizes.end(), 1 + known_requests, size);
  return sizes;
}

// The network's input is as large as the picture: every picture that is made here fits the rule exactly, at
// scale 1.
std::shared_ptr<const Model> at_size(const Model& model, Size input) {
  if (model.config.kind != ModelKind::detector)
    throw Error(ErrorCode::bad_model,
                model.weights.source() + ": a backbone without a detector's head; only detectors are timed");
  ModelConfig config = model.config;
  config.short_side = std::min(input.height, input.width);
  config.long_side = std::max(input.height, input.width);
  return with_config(model, std::move(config));
}

// One image for each line of standard input, so that somebody else decides when; the answer is its time.
bool line_asks_for_one_more(const std::vector<double>& ms) {
  if (ms.empty()) fmt::print("ready\n");
  if (!ms.empty()) fmt::print("{:.6f}\n", ms.back());
  std::fflush(stdout);
  for (int c; (c = std::getchar()) != EOF;)
    if (c == '\n') return true;
  if (ms.empty())
    throw Error(ErrorCode::invalid_argument, "--step: standard input has no line, so nothing was timed");
  return false;
}

struct Prepared {
  BenchRequest request;
  std::string model_name;
  Size input;
};

Prepared prepare(const BenchOptions& options) {
  Prepared p;
  std::shared_ptr<const Model> model;  // of --arch: made before the clock starts
  if (options.architecture.empty()) {
    model = load_model(options.model);
  } else {
    model = random_model(options.architecture);
    if (!options.save_model.empty()) save_model(options.save_model, model->config, stored_tensors(*model));
  }
  p.model_name = options.architecture.empty() ? options.model : model->weights.source();
  p.input = options.input.empty() ? Size{model->config.short_side, model->config.long_side}
                                  : parse_size(options.input);
  BenchRequest& r = p.request;
  r.detector = detector_options(options.device);
  r.detector.max_batch = options.batch;
  if (r.detector.threads == 0) r.detector.threads = std::max(1, usable_cores() / options.sessions);
  r.iterations = options.iterations;
  if (options.sizes != "fixed") {
    const int side = std::max(p.input.height, p.input.width);
    r.picture = resized(read_picture(options), side, side);
    if (options.sizes == "random") {
      r.sizes = random_sizes(p.input);
    } else {
      const int before = 1 + options.warmup;  // the first image of all, and those for warm-up
      r.sizes = new_sizes(p.input, before, options.iterations);
      r.iterations = static_cast<int>(r.sizes.size()) - before;
    }
  } else {
    r.picture = resized(read_picture(options), p.input.height, p.input.width);
    r.sizes = {{p.input.height, p.input.width}};
  }
  at_size(*model, p.input);  // refuses what cannot be timed before anything is
  if (options.architecture.empty()) {
    r.load = [path = options.model, input = p.input] { return at_size(*load_model(path), input); };
  } else {
    r.load = [model, input = p.input] { return at_size(*model, input); };
  }
  r.warmup = options.warmup;
  r.seconds = options.seconds;
  r.on_device = options.on_device;
  r.sessions = options.sessions;
  r.per_layer = options.per_layer;
  if (options.step) r.more = [](const std::vector<double>& ms) { return line_asks_for_one_more(ms); };
  return p;
}

// Of --sizes new: leaves the first requests' times, and returns for each the median of the others of its
// size. What
// --seconds cut short goes.
std::vector<double> take_known(std::vector<double>& samples) {
  std::vector<double> first, known;
  for (auto at = samples.begin(); samples.end() - at > std::ptrdiff_t{known_requests};
       at += 1 + std::ptrdiff_t{known_requests}) {
    first.push_back(*at);
    known.push_back(quantile({at + 1, at + 1 + std::ptrdiff_t{known_requests}}, 0.5));
  }
  if (first.empty())
    throw Error(ErrorCode::invalid_argument, "--seconds: over before a single new size was known");
  samples = std::move(first);
  return known;
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

std::vector<double> excess(const std::vector<double>& first, const std::vector<double>& known) {
  std::vector<double> more;
  for (std::size_t i = 0; i < known.size(); ++i) more.push_back(first[i] - known[i]);
  return more;
}

double images_per_second(int batch, const BenchResult& result) {
  return 1000.0 * batch * static_cast<double>(result.batches) / result.wall_ms;
}

double total_ms(const std::vector<BenchLayer>& layers) {
  return std::accumulate(layers.begin(), layers.end(), 0.0,
                         [](double sum, const BenchLayer& l) { return sum + l.ms; });
}

double mib(std::size_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

void print_layers(const std::vector<BenchLayer>& layers) {
  std::size_t layer = 5, op = 4;
  for (const BenchLayer& l : layers) {
    layer = std::max(layer, l.layer.size());
    op = std::max(op, l.op.size());
  }
  const double total = total_ms(layers);
  fmt::print("\n{:<{}}  {:<{}}  {:>9}  {:>6}  {:>9}  {:>8}  {}\n", "layer", layer, "kind", op, "ms", "share",
             "GFLOP", "GFLOP/s", "kernel");
  double flops = 0;
  for (const BenchLayer& l : layers) {
    flops += l.flops;
    fmt::print("{:<{}}  {:<{}}  {:>9.3f}  {:>5.1f}%  {:>9}  {:>8}  {}\n", l.layer, layer, l.op, op, l.ms,
               100 * l.ms / total, l.flops > 0 ? fmt::format("{:.3f}", l.flops / 1e9) : "",
               l.flops > 0 && l.ms > 0 ? fmt::format("{:.0f}", l.flops / l.ms / 1e6) : "", l.kernel);
  }
  fmt::print("{:<{}}  {:<{}}  {:>9.3f}  {:>6}  {:>9.3f}  {:>8.0f}\n", "sum", layer, "", op, total, "",
             flops / 1e9, flops / total / 1e6);
}

void print_human(const BenchOptions& options, const Prepared& p, const BenchResult& r,
                 const std::vector<double>& known) {
  fmt::print("{}, input {}{}x{}, {} on {}, {} thread{}", p.model_name,
             options.sizes == "random" ? "within " : "", p.input.height, p.input.width, name_of(r.precision),
             r.device, p.request.detector.threads, p.request.detector.threads == 1 ? "" : "s");
  if (options.sessions > 1) fmt::print(", {} sessions", options.sessions);
  if (options.batch > 1) fmt::print(", batches of {}", options.batch);
  if (!r.libraries.empty()) fmt::print(", kernels of {} too", fmt::join(r.libraries, " and "));
  fmt::print("\n{}, {} cores, {}, oneDNN {} with {}\n\n", processor_name(), usable_cores(),
             memory_text("MemTotal"), dnnl_library(), dnnl_isa());
  if (options.architecture.empty()) fmt::print("load         {:.1f} ms\n", r.load_ms);
  const char* const one = options.batch > 1 ? "batch" : "image";
  fmt::print("first {}  {:.1f} ms ({} proposals, {} detections{})\n", one, r.first_image_ms, r.proposals,
             r.detections, options.batch > 1 ? " in its first image" : "");
  fmt::print(
      "{}        median {:.2f} ms, p90 {:.2f}, p99 {:.2f}, p99.9 {:.2f}, least {:.2f}, most {:.2f}; {:.2f} "
      "images/s\n",
      one, quantile(r.samples_ms, 0.5), quantile(r.samples_ms, 0.9), quantile(r.samples_ms, 0.99),
      quantile(r.samples_ms, 0.999), *std::min_element(r.samples_ms.begin(), r.samples_ms.end()),
      *std::max_element(r.samples_ms.begin(), r.samples_ms.end()), images_per_second(options.batch, r));
  fmt::print("             {} {}{} after {} for warm-up{}\n", r.samples_ms.size(), one,
             r.samples_ms.size() == 1 ? ""
             : options.batch > 1      ? "es"
                                      : "s",
             options.warmup, options.sessions > 1 ? " of each session" : "");
  if (!known.empty())
    fmt::print(
        "known size   median {:.2f} ms; a size's first request takes {:.2f} ms more at the median, at most "
        "{:.2f}\n",
        quantile(known, 0.5), quantile(excess(r.samples_ms, known), 0.5),
        quantile(excess(r.samples_ms, known), 1));
  fmt::print(
      "memory       arena {:.1f} MiB used of {:.1f} reserved, packed weights {:.1f} MiB, peak of the process "
      "{:.1f} MiB\n",
      mib(r.arena_bytes), mib(r.reserved_bytes), mib(r.packed_bytes), mib(r.peak_bytes));
  if (r.sessions.front().runs.recordings > 0) {
    RunCounts runs;
    for (const SessionStats& s : r.sessions) {
      runs.eager += s.runs.eager;
      runs.replays += s.runs.replays;
      runs.recordings += s.runs.recordings;
    }
    fmt::print("graphs       {} captured, {} {} by replaying one, {} kernel by kernel\n", runs.recordings,
               runs.replays, options.batch > 1 ? "batches" : "images", runs.eager);
  }
  if (!r.layers.empty()) print_layers(r.layers);
}

using Json = nlohmann::ordered_json;

Json sessions_json(const std::vector<SessionStats>& sessions) {
  Json list = Json::array();
  for (const SessionStats& s : sessions)
    list.push_back({{"plans", s.plans},
                    {"graphs", s.graphs},
                    {"captures", s.runs.recordings},
                    {"replays", s.runs.replays},
                    {"eager_runs", s.runs.eager},
                    {"evictions", s.evictions},
                    {"arena_bytes", s.arena_bytes},
                    {"staging_bytes", s.staging_bytes},
                    {"pixel_bytes", s.pixel_bytes},
                    {"packed_weight_bytes", s.packed_weight_bytes},
                    {"allocations_since_plan", s.allocations_since_plan},
                    {"synchronizations", s.synchronizations}});
  return list;
}

Json layers_json(const std::vector<BenchLayer>& layers) {
  const double total = total_ms(layers);
  Json list = Json::array();
  for (const BenchLayer& l : layers) {
    Json one{{"layer", l.layer},   {"op", l.op}, {"stage", l.stage},
             {"kernel", l.kernel}, {"ms", l.ms}, {"share", l.ms / total}};
    one["gflop"] = l.flops / 1e9;
    one["mbytes"] = l.bytes / 1e6;
    one["gflop_per_s"] = l.flops > 0 && l.ms > 0 ? Json(l.flops / l.ms / 1e6) : Json(nullptr);
    list.push_back(std::move(one));
  }
  return list;
}

std::string to_json(const BenchOptions& options, const Prepared& p, const BenchResult& r,
                    const std::vector<double>& known) {
  Json json{{"schema_version", schema_version},
            {"version", FRCNN_VERSION},
            {"commit", FRCNN_COMMIT},
            {"machine",
             {{"processor", processor_name()},
              {"cores", usable_cores()},
              {"instructions", instruction_sets()},
              {"memory", memory_text("MemTotal")},
              {"onednn", dnnl_library()},
              {"onednn_isa", dnnl_isa()}}},
            {"model", p.model_name},
            {"architecture", options.architecture.empty() ? Json(nullptr) : Json(options.architecture)},
            {"device", r.device},
            {"precision", name_of(r.precision)},
            {"algo", options.device.algo},
            {"libraries", r.libraries},
            {"threads", p.request.detector.threads},
            {"input", {{"height", p.input.height}, {"width", p.input.width}}},
            {"sizes", options.sizes},
            {"pixels", options.on_device ? "device" : "host"},
            {"image", options.image.empty() ? Json(nullptr) : Json(options.image)},
            {"batch", options.batch},
            {"concurrency", options.sessions},
            {"warmup", options.warmup},
            {"iters", options.iterations},
            {"seconds", options.seconds > 0 ? Json(options.seconds) : Json(nullptr)},
            {"load_ms",
             options.architecture.empty() ? Json(r.load_ms) : Json(nullptr)},  // drawn weights load nothing
            {"first_image_ms", r.first_image_ms},
            {"median_ms", quantile(r.samples_ms, 0.5)},
            {"p90_ms", quantile(r.samples_ms, 0.9)},
            {"p99_ms", quantile(r.samples_ms, 0.99)},
            {"p999_ms", quantile(r.samples_ms, 0.999)},
            {"mean_ms", mean(r.samples_ms)},
            {"images_per_s", images_per_second(options.batch, r)},
            {"samples_ms", r.samples_ms},
            {"known_ms", known.empty() ? Json(nullptr) : Json(known)},
            {"proposals", r.proposals},
            {"detections", r.detections},
            {"arena_bytes", r.arena_bytes},
            {"arena_reserved_bytes", r.reserved_bytes},
            {"packed_weight_bytes", r.packed_bytes},
            {"peak_rss_bytes", r.peak_bytes},
            {"sessions", sessions_json(r.sessions)},
            {"layer_repeats", r.layer_repeats},
            {"layers", layers_json(r.layers)}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

int bench(const BenchOptions& options) {
  if (!options.json.empty() && options.json != "-") {
    for (const std::string& other : {options.model, options.image, options.save_model})
      if (!other.empty()) keep_apart(other, options.json);
    check_writable(options.json);
  }
  const Prepared prepared = prepare(options);
  BenchResult result = run_bench(prepared.request);
  const std::vector<double> known =
      options.sizes == "new" ? take_known(result.samples_ms) : std::vector<double>();
  if (options.json == "-") {
    const std::string text = to_json(options, prepared, result, known);
    std::fwrite(text.data(), 1, text.size(), stdout);  // main() checks stdout at the end
    return exit_ok;
  }
  print_human(options, prepared, result, known);
  if (!options.json.empty()) {
    const std::string text = to_json(options, prepared, result, known);
    write_atomically(options.json, text);
  }
  return exit_ok;
}

void add_measurement_options(CLI::App& command, BenchOptions& o) {
  const std::string group = "How it measures";
  const auto count = [&](const char* name, int& value, int least, const char* what) {
    return command.add_option(name, value, what)
        ->check(CLI::Range(least, 1 << 20).description(""))
        ->type_name("N")
        ->capture_default_str()
        ->group(group);
  };
  CLI::Option* const iterations = count("--iters", o.iterations, 1, "Images that are timed, of each session");
  count("--warmup", o.warmup, 0, "Images before them");
  CLI::Option* const sessions =
      command
          .add_option("--concurrency", o.sessions, "Sessions, each in its own thread, that share the weights")
          ->check(CLI::Range(1, 1024).description(""))
          ->type_name("N")
          ->capture_default_str()
          ->group(group);
  CLI::Option* const sizes =
      command
          .add_option(
              "--sizes", o.sizes,
              "random: 64 sizes of the input's shorter side, in either direction; new: each is asked for "
              "the first time, and then again")
          ->check(CLI::IsMember({"fixed", "random", "new"}).description(""))
          ->type_name("NAME")
          ->default_str("fixed")
          ->group(group);
  CLI::Option* const seconds =
      command
          .add_option("--seconds", o.seconds,
                      "No image begins later than that into the measurement; 0: no limit")
          ->check(CLI::Range(0.0, 86400.0).description(""))
          ->type_name("S")
          ->capture_default_str()
          ->group(group);
  command
      .add_flag("--pixels-on-device", o.on_device,
                "The picture lies in the GPU's memory already: the time of an image is without its upload")
      ->group(group);
  command.add_flag("--per-layer", o.per_layer, "Also the time, GFLOP/s and kernel of every layer")
      ->excludes(sessions)
      ->excludes(sizes)
      ->group(group);
  command
      .add_flag("--step", o.step,
                "One image for each line read from standard input, its milliseconds printed; to take turns "
                "with others")
      ->excludes(iterations)
      ->excludes(seconds)
      ->excludes(sessions)
      ->group(group);
  command
      .add_option("--json", o.json,
                  "The measurement with all samples as JSON; - is standard output, instead of the text")
      ->type_name("FILE|-")
      ->group(group);
}

}  // namespace

void add_bench(CLI::App& app, Action& action) {
  auto options = std::make_shared<BenchOptions>();
  options->sizes = "fixed";
  CLI::App* command = app.add_subcommand("bench", "Measure how fast a detector is on this machine");
  CLI::Option* const model =
      command->add_option("MODEL", options->model, "A detector that `frcnn convert` wrote; or --arch")
          ->type_name("");
  CLI::Option* const architecture =
      command
          ->add_option("--arch", options->architecture,
                       "A published network with random weights instead: vgg16 or zf")
          ->check(CLI::IsMember(random_architectures).description(""))
          ->type_name("NAME")
          ->excludes(model);
  command
      ->add_option("--save-model", options->save_model,
                   "Keep the random model, to measure other programs with it")
      ->needs(architecture)
      ->type_name("FILE");
  command
      ->add_option("--input", options->input,
                   "Height and width of the network's input; default: the model's own limits")
      ->type_name("HxW");
  command
      ->add_option("--image", options->image,
                   "The picture, resized to the input; default: one of weights/images")
      ->type_name("FILE");
  add_measurement_options(*command, *options);
  add_device_options(*command, options->device);
  add_batch_option(*command, options->batch, "Images detected at once; what is timed is a batch");
  command->footer(bench_help);
  command->callback([&action, options] {
    if (options->model.empty() && options->architecture.empty())
      throw CLI::RequiredError("MODEL (or --arch NAME)");
    if (!options->input.empty()) parse_size(options->input);
    if (options->sizes == "new" && (options->sessions > 1 || options->batch > 1 || options->step))
      throw CLI::ValidationError("--sizes new", "is for one image at a time of one session, without --step");
    if (options->step && options->json == "-")
      throw CLI::ValidationError("--step prints times; give --json a file");
    action = [options] { return bench(*options); };
  });
}

}  // namespace frcnn
