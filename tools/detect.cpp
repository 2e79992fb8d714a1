// `frcnn detect`: images in, boxes, pictures and JSON out.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "commands.h"
#include "detect_each.h"
#include "detector/detector.h"
#include "device_options.h"
#include "draw.h"
#include "dump_file.h"
#include "frcnn/error.h"
#include "image_list.h"
#include "model_io/atomic_file.h"
#include "model_io/detections_json.h"
#include "model_io/image_file.h"
#include "model_io/model_file.h"
#include "progress.h"

namespace frcnn {
namespace {

struct DetectOptions {
  std::string model;
  std::vector<std::string> images;
  DeviceOptions device;
  std::string json, draw, dump, proposals, proposals_out;
  double score = 0.5;
  std::optional<int> short_side, long_side;
  std::optional<double> nms;
  std::optional<std::int64_t> max_detections, num_proposals;
  int batch = 1;
  bool timing = false;
};

constexpr const char* detect_help =
    "Examples:\n"
    "  frcnn detect zf.safetensors photo.jpg                    a table of what is in the photo\n"
    "  frcnn detect zf.safetensors photos/ --draw out           a picture with boxes for each\n"
    "  frcnn detect zf.safetensors 'day*/*.png' --json -        JSON for another program\n"
    "  frcnn detect zf.safetensors photo.jpg --dump ours.safetensors\n"
    "                                                           every layer's output, for `frcnn diff`\n"
    "\n"
    "Boxes are x1 y1 x2 y2, inclusive, in pixels of the original image. An image that cannot be read is\n"
    "reported on stderr, the others go on, and the exit code is 1.\n"
    "--batch N saves time where N images of one size cost less than N times one. Images of other sizes are\n"
    "padded to the largest, which costs time and moves the boxes of the smaller ones a little: what the "
    "network\n"
    "sees beyond their right and lower edges is padding in either case, but computed instead of zero.";

void write_text(const std::string& path, const std::string& text) {
  if (path == "-") {
    std::fwrite(text.data(), 1, text.size(), stdout);  // main() checks stdout at the end
    return;
  }
  write_atomically(path, text);
}

// The model's conventions with the user's overrides. Only a score below the model's own threshold changes the
// graph: selection is by "score > threshold", and filtering afterwards gives the same as a higher threshold
// would.
ModelConfig effective_config(ModelConfig config, const DetectOptions& options) {
  if (options.short_side) config.short_side = *options.short_side;
  if (options.long_side) config.long_side = *options.long_side;
  if (options.nms) config.nms = *options.nms;
  if (options.max_detections) config.max_detections = *options.max_detections;
  if (options.num_proposals) config.post_nms_top_n = *options.num_proposals;
  const auto score = static_cast<float>(options.score);
  if (score <= static_cast<float>(config.score_threshold)) {
    config.score_threshold = static_cast<double>(std::nextafter(score, -1.0f));
  }
  return config;
}

std::shared_ptr<const Model> load_detector(const DetectOptions& options) {
  const std::shared_ptr<const Model> model = load_model(options.model);
  if (model->config.kind != ModelKind::detector) {
    throw Error(ErrorCode::bad_model, options.model +
                                          ": a backbone without a detector's head finds nothing; "
                                          "`frcnn inspect` shows what it holds");
  }
  return with_config(*model, effective_config(model->config, options));
}

class Stopwatch {
 public:
  double ms() const {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

StageTimes stage_times(const std::vector<NodeTime>& nodes, bool stages_timed, double decode_ms,
                       double total_ms) {
  StageTimes times;
  times.decode = decode_ms;
  times.total = total_ms;
  if (!stages_timed) return times;
  std::optional<double>* const slots[] = {&times.preprocess, &times.backbone, &times.rpn, &times.proposals,
                                          &times.head};
  for (std::optional<double>* slot : slots) *slot = 0.0;
  for (const NodeTime& node : nodes) **slots[static_cast<std::size_t>(node.stage)] += node.ms;
  return times;
}

void print_human(const ImageDetections& image, const std::string& device) {
  fmt::print("{}  {}x{}, {} proposals, {} detection{} on {}\n", image.file, image.width, image.height,
             image.proposals, image.detections.size(), image.detections.size() == 1 ? "" : "s", device);
  std::size_t label_width = 0;
  for (const LabelledDetection& d : image.detections) label_width = std::max(label_width, d.label.size());
  for (const LabelledDetection& d : image.detections) {
    fmt::print("  {:<{}}  {:.3f}  {:8.1f} {:8.1f} {:8.1f} {:8.1f}\n", d.label, label_width, d.score, d.box[0],
               d.box[1], d.box[2], d.box[3]);
  }
  if (!image.ms) return;
  const auto print_ms = [](const char* name, const std::optional<double>& ms) {
    if (ms) fmt::print("  {} {:.2f}", name, *ms);
  };
  fmt::print("  ms:");
  print_ms("decode", image.ms->decode);
  print_ms("preprocess", image.ms->preprocess);
  print_ms("backbone", image.ms->backbone);
  print_ms("rpn", image.ms->rpn);
  print_ms("proposals", image.ms->proposals);
  print_ms("head", image.ms->head);
  print_ms("total", image.ms->total);
  fmt::print("\n");
}

// One run over a list of images with everything that it writes.
class DetectRun {
 public:
  DetectRun(const DetectOptions& options, const std::vector<std::string>& images)
      : options_(options),
        model_(load_detector(options)),
        on_(detector_options(options.device, options.batch, images.size())),
        detector_(model_, open_device(on_), on_),
        names_(options.draw, images) {
    if (!options.proposals.empty()) proposals_ = read_proposals(options.proposals);
    if (!options.draw.empty()) make_directory(options.draw);
    file_.model = options.model;
    file_.device = detector_.device().name();
    file_.precision = name_of(detector_.device().precision());
  }

  int run(const std::vector<std::string>& images) {
    Progress progress(images.size());
    const auto size = static_cast<std::size_t>(options_.batch);
    for (std::size_t first = 0; first < images.size(); first += size) {
      progress.show(first, images[first]);
      for (Found& found :
           detect({images.begin() + static_cast<std::ptrdiff_t>(first),
                   images.begin() + static_cast<std::ptrdiff_t>(std::min(first + size, images.size()))},
                  progress)) {
        if (options_.json != "-") {
          progress.clear();
          print_human(found.labelled, file_.device);
        }
        keep(std::move(found));
      }
    }
    progress.clear();
    write();
    return failed_ == 0 ? exit_ok : exit_bad_input;
  }

 private:
  struct Found {
    std::string path;
    Image image;
    double decode_ms = 0;
    DetectResult result;
    ImageDetections labelled;
  };

  static void make_directory(const std::string& path) {
    std::error_code code;
    std::filesystem::create_directories(path, code);
    if (code) throw Error(ErrorCode::io, path + ": cannot make the directory: " + code.message());
  }

  // Of an image; failing to write an output ends the run instead.
  void report(const Error& error, const std::string& path, Progress& progress) {
    progress.clear();
    fmt::print(stderr, "frcnn: error: {}\n", named_after(path, error.what()));
    ++failed_;
  }

  // What is found in those of a batch's images that can be read and detected in; the others are reported.
  std::vector<Found> detect(const std::vector<std::string>& paths, Progress& progress) {
    std::vector<Found> all;
    std::vector<Image> images;
    std::vector<std::vector<Proposal>> given;
    for (const std::string& path : paths) {
      const Stopwatch watch;
      try {
        Image image = read_image(path);
        if (!options_.proposals.empty())
          given.push_back(find_proposals(proposals_, options_.proposals, path).proposals);
        images.push_back(std::move(image));
        all.push_back({path, {}, watch.ms(), {}, {}});
      } catch (const Error& error) {
        report(error, path, progress);
      }
    }
    DetectRequest request;
    request.want_proposals = !options_.proposals_out.empty();
    request.want_tensors = !options_.dump.empty();
    const bool stages_timed = options_.timing && detector_.device().stages_can_be_timed();
    request.want_times = stages_timed;
    if (!options_.proposals.empty()) request.proposals = given.data();
    const Stopwatch watch;
    std::vector<Attempt> attempts = detect_each(detector_, images, request);
    const double share_ms = watch.ms() / static_cast<double>(images.size());
    share_times(attempts);
    std::vector<Found> found;
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (attempts[i].error) {
        report(*attempts[i].error, all[i].path, progress);
        continue;
      }
      Found& one = all[i];
      one.image = std::move(images[i]);
      one.result = std::move(*attempts[i].result);
      one.labelled =
          labelled(one.path, one.result, model_->config.classes, static_cast<float>(options_.score));
      if (options_.timing)
        one.labelled.ms =
            stage_times(one.result.times, stages_timed, one.decode_ms, one.decode_ms + share_ms);
      found.push_back(std::move(one));
    }
    return found;
  }

  // The stages of a batch were timed together and came with its first image: to each an equal part.
  static void share_times(std::vector<Attempt>& attempts) {
    if (attempts.size() < 2 || !attempts[0].result || !attempts[1].result ||
        !attempts[1].result->times.empty())
      return;
    std::vector<NodeTime> times = attempts[0].result->times;
    for (NodeTime& time : times) time.ms /= static_cast<double>(attempts.size());
    for (Attempt& attempt : attempts) attempt.result->times = times;
  }

  void keep(Found found) {
    const std::string& path = found.path;
    if (!options_.draw.empty()) {
      draw_detections(found.image, found.labelled.detections);
      write_png(names_.next(path), found.image);
    }
    if (!options_.dump.empty()) write_dump(options_.dump, *model_, found.result);
    if (!options_.proposals_out.empty()) {
      proposals_out_.push_back({path, std::move(found.result.proposals)});
    }
    file_.images.push_back(std::move(found.labelled));
  }

  // Nothing is written when no image could be read: an empty answer would look like a picture without
  // objects.
  void write() const {
    if (file_.images.empty()) return;
    if (!options_.proposals_out.empty())
      write_text(options_.proposals_out, proposals_to_json(proposals_out_));
    if (!options_.json.empty()) write_text(options_.json, detections_to_json(file_));
  }

  const DetectOptions& options_;
  std::shared_ptr<const Model> model_;
  DetectorOptions on_;
  Detector detector_;
  OutputNames names_;
  std::vector<ImageProposals> proposals_, proposals_out_;
  DetectionsFile file_;
  int failed_ = 0;
};

int detect(const DetectOptions& options) {
  std::vector<std::string> problems;
  const std::vector<std::string> images = expand_images(options.images, problems);
  if (!options.dump.empty() && images.size() != 1) {
    throw Error(ErrorCode::invalid_argument, fmt::format("--dump {}: takes one image, the arguments name {}",
                                                         options.dump, images.size()));
  }
  for (const std::string& problem : problems) fmt::print(stderr, "frcnn: error: {}\n", problem);
  const int code = images.empty() ? exit_bad_input : DetectRun(options, images).run(images);
  return problems.empty() ? code : exit_bad_input;
}

void add_output_options(CLI::App& command, DetectOptions& o) {
  const std::string group = "What it writes";
  command.add_option("--json", o.json, "Detections as JSON; - is standard output, instead of the table")
      ->type_name("FILE|-")
      ->group(group);
  command.add_option("--draw", o.draw, "A directory for pictures with boxes, labels and scores: STEM.png")
      ->type_name("DIR")
      ->group(group);
  command
      .add_option("--dump", o.dump, "Every named value of the network for one image, NCHW fp32 safetensors")
      ->type_name("FILE")
      ->group(group);
  command
      .add_option("--proposals-out", o.proposals_out,
                  "The proposals as JSON, in pixels of the original images")
      ->type_name("FILE")
      ->group(group);
  command.add_flag("--timing", o.timing, "Milliseconds per stage, in the table and as \"ms\" in the JSON")
      ->group(group);
}

void add_convention_options(CLI::App& command, DetectOptions& o) {
  const std::string group = "How it detects (default: the model's own conventions)";
  const CLI::Range unit = CLI::Range(0.0, 1.0);
  constexpr int longest_side = 32768;  // as in a model file
  command.add_option("--score", o.score, "Lowest score to show; also below the model's own threshold")
      ->check(CLI::Range(unit).description(""))
      ->type_name("S")
      ->capture_default_str()
      ->group(group);
  command.add_option("--short-side", o.short_side, "Pixels to which the shorter side is resized")
      ->check(CLI::Range(1, longest_side).description(""))
      ->type_name("PIXELS")
      ->group(group);
  command
      .add_option("--long-side", o.long_side, "Pixels that the longer side may have at most, after resizing")
      ->check(CLI::Range(1, longest_side).description(""))
      ->type_name("PIXELS")
      ->group(group);
  command.add_option("--nms", o.nms, "IoU above which the weaker of two boxes of one class goes")
      ->check(CLI::Range(unit).description(""))
      ->type_name("IOU")
      ->group(group);
  command
      .add_option("--max-detections", o.max_detections,
                  "Most detections per image over all classes; 0: no cap")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 30).description(""))
      ->type_name("N")
      ->group(group);
  CLI::Option* const num_proposals =
      command.add_option("--num-proposals", o.num_proposals, "Most proposals per image that reach the head")
          ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20).description(""))
          ->type_name("N")
          ->group(group);
  command
      .add_option("--proposals", o.proposals,
                  "Boxes in place of the RPN's, as --proposals-out writes; found by file name or stem")
      ->type_name("FILE")
      ->excludes(num_proposals)
      ->group(group);
}

}  // namespace

void add_detect(CLI::App& app, Action& action) {
  auto options = std::make_shared<DetectOptions>();
  CLI::App* command = app.add_subcommand("detect", "Find objects in images");
  command->add_option("MODEL", options->model, "A model that `frcnn convert` wrote")
      ->required()
      ->type_name("");
  command
      ->add_option("IMAGE", options->images,
                   "JPEG, PNG or BMP files, directories, or quoted patterns such as 'a*.png'")
      ->required()
      ->type_name("");
  add_output_options(*command, *options);
  add_convention_options(*command, *options);
  add_device_options(*command, options->device);
  add_batch_option(*command, options->batch, "Images detected at once, in their order");
  command->footer(detect_help);
  command->callback([&action, options] { action = [options] { return detect(*options); }; });
}

}  // namespace frcnn
