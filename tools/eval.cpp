// `frcnn eval`: how well a model, or a file of detections, does on a VOC dataset.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "commands.h"
#include "dataset_options.h"
#include "detect_each.h"
#include "detector/detector.h"
#include "device_options.h"
#include "frcnn/error.h"
#include "model_io/atomic_file.h"
#include "model_io/detections_json.h"
#include "model_io/image_file.h"
#include "model_io/model_file.h"
#include "progress.h"
#include "training/voc_dataset.h"
#include "training/voc_eval.h"

namespace frcnn {
namespace {

struct EvalOptions {
  std::string model, data, set, metric = "voc07";
  std::string json, detections, from_detections;
  int batch = 1;
  DeviceOptions device;
};

constexpr const char* eval_help =
    "Examples:\n"
    "  frcnn eval zf.safetensors --data VOC2007 --set test\n"
    "  frcnn eval zf.safetensors --data VOC2007 --set test --detections found.json --json scores.json\n"
    "  frcnn eval --from-detections found.json --data VOC2007 --set test --metric voc\n"
    "\n"
    "A dataset is a directory with Annotations/, ImageSets/Main/ and JPEGImages/. A detection is right when "
    "its IoU\n"
    "with an object of its class that no better one has found is above 0.5. `map` is computed from the exact "
    "scores\n"
    "and boxes, `map_rounded` from what py-faster-rcnn's text files keep of them (0.001 and 0.1 pixels), "
    "which is\n"
    "what published numbers are. Proposal recall is the mean over IoU 0.50, 0.55 ... 0.95.\n"
    "With --from-detections no image is read; a MODEL given as well only says which classes to score, and "
    "the\n"
    "options for where it computes have nothing to act on. With --batch the scores are those of what a "
    "program "
    "finds\n"
    "that detects in so many images at once, of the sizes that follow one another in the set: smaller ones "
    "are "
    "padded.";

using Boxes = std::vector<std::array<float, 4>>;

// Everything that is scored: one entry per image of the dataset, in its order.
struct Found {
  std::vector<ImageDetections> images;
  std::optional<std::vector<Boxes>> proposals;  // a file of detections has none
  std::string device;                           // nor a device
};

void write_text(const std::string& path, const std::string& text) {
  if (path == "-") {
    std::fwrite(text.data(), 1, text.size(), stdout);  // main() checks stdout at the end
    return;
  }
  write_atomically(path, text);
}

void report_remarks(const VocDataset& dataset) {
  constexpr std::size_t shown = 5;
  for (std::size_t i = 0; i < std::min(shown, dataset.remarks.size()); ++i) {
    fmt::print(stderr, "frcnn: warning: {}\n", dataset.remarks[i]);
  }
  if (dataset.remarks.size() > shown) {
    fmt::print(stderr, "frcnn: warning: {} more boxes like these\n", dataset.remarks.size() - shown);
  }
}

Found detect_all(const EvalOptions& options, const std::shared_ptr<const Model>& model,
                 const VocDataset& dataset) {
  const std::size_t all = dataset.images.size();
  const DetectorOptions on = detector_options(options.device, options.batch, all);
  Detector detector(model, open_device(on), on);
  Found found;
  found.device = detector.device().name();
  found.proposals.emplace();
  DetectRequest request;
  request.want_proposals = true;
  Progress progress(all);
  for (std::size_t first = 0; first < all;) {
    std::vector<std::string> paths;
    std::vector<Image> images;
    for (; first < all && images.size() < static_cast<std::size_t>(on.max_batch); ++first) {
      paths.push_back(voc_image_path(dataset.directory, dataset.images[first].id));
      progress.show(first, paths.back());
      images.push_back(read_image(paths.back()));
    }
    const std::vector<Attempt> attempts = detect_each(detector, images, request);
    for (std::size_t i = 0; i < attempts.size(); ++i) {
      if (attempts[i].error)
        throw Error(attempts[i].error->code(), named_after(paths[i], attempts[i].error->what()));
      const DetectResult& result = *attempts[i].result;
      found.images.push_back(
          labelled(paths[i], result, model->config.classes, -std::numeric_limits<float>::infinity()));
      Boxes boxes;
      for (const Proposal& proposal : result.proposals) boxes.push_back(proposal.box);
      found.proposals->push_back(std::move(boxes));
    }
  }
  progress.clear();
  if (!options.detections.empty()) {
    write_text(options.detections,
               detections_to_json({options.model, detector.device().name(),
                                   std::string(name_of(detector.device().precision())), found.images}));
  }
  return found;
}

// Images are matched by the stem of their file's name; every image of the set must be there, others may be.
Found read_all(const EvalOptions& options, const VocDataset& dataset) {
  DetectionsFile file = read_detections(options.from_detections);
  std::map<std::string, std::size_t> by_stem;
  for (std::size_t i = 0; i < file.images.size(); ++i) {
    const std::string stem = std::filesystem::path(file.images[i].file).stem().string();
    if (!by_stem.emplace(stem, i).second) {
      throw Error(ErrorCode::bad_file,
                  fmt::format("{}: image {} occurs twice", options.from_detections, stem));
    }
  }
  Found found;
  for (const VocAnnotation& image : dataset.images) {
    const auto entry = by_stem.find(std::filesystem::path(image.id).filename().string());
    if (entry == by_stem.end()) {
      throw Error(ErrorCode::bad_file, fmt::format("{}: no entry for image {} of set {}",
                                                   options.from_detections, image.id, dataset.set));
    }
    found.images.push_back(std::move(file.images[entry->second]));
  }
  return found;
}

std::vector<std::string> classes_to_score(const Model* model, const VocDataset& dataset) {
  const std::vector<std::string> present = object_names(dataset);
  if (!model) return present;
  const std::vector<std::string>& all = model->config.classes;
  const std::vector<std::string> classes(all.begin() + (all.empty() ? 0 : 1), all.end());
  const ClassNames names(classes);
  const bool any = std::any_of(present.begin(), present.end(),
                               [&](const std::string& name) { return names.find(name).has_value(); });
  if (!any && !present.empty()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{}: none of its classes ({}, ...) occurs in {}, whose objects are {}, ...",
                            model->weights.source(), classes.empty() ? "none" : classes.front(),
                            dataset.directory, present.front()));
  }
  return classes;
}

nlohmann::ordered_json or_null(const std::optional<double>& value) {
  return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json(nullptr);
}

struct Report {
  VocScore score;
  std::optional<ProposalRecall> recall;
  std::array<std::optional<ProposalRecall>, 3> recall_by_area;  // small, medium, large
  std::size_t images = 0;
  double seconds = 0;
  std::string device;  // empty if nothing was detected here
};

// COCO's and the release's bounds between small, medium and large.
constexpr std::array<const char*, 3> area_names{"small", "medium", "large"};
constexpr std::array<AreaRange, 3> area_ranges{{{0, 32 * 32}, {32 * 32, 96 * 96}, {96 * 96, 1e10}}};

std::string report_json(const EvalOptions& options, const Report& report) {
  nlohmann::ordered_json json;
  json["metric"] = options.metric;
  json["map"] = or_null(report.score.map);
  json["map_rounded"] = or_null(report.score.map_rounded);
  json["per_class"] = nlohmann::ordered_json::object();
  for (const VocClassScore& one : report.score.classes) {
    nlohmann::ordered_json entry;
    entry["ap"] = or_null(one.ap);
    entry["npos"] = one.positives;
    entry["ndet"] = one.detections;
    entry["max_recall"] = one.max_recall;
    json["per_class"][one.name] = std::move(entry);
  }
  const auto average = [](const std::optional<ProposalRecall>& recall) {
    return or_null(recall ? std::optional(recall->average) : std::nullopt);
  };
  json["proposal_recall"] = average(report.recall);
  json["images"] = report.images;
  json["seconds"] = report.seconds;
  if (report.recall) {
    nlohmann::ordered_json at, by_area;
    for (std::size_t i = 0; i < ProposalRecall::thresholds.size(); ++i) {
      at[fmt::format("{:.2f}", ProposalRecall::thresholds[i])] = report.recall->recall[i];
    }
    for (std::size_t i = 0; i < area_names.size(); ++i)
      by_area[area_names[i]] = average(report.recall_by_area[i]);
    json["proposal_recall_at_iou"] = std::move(at);
    json["proposal_recall_by_area"] = std::move(by_area);
  }
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

std::string cell(const std::optional<double>& value) { return value ? fmt::format("{:.4f}", *value) : "-"; }

void print_table(const EvalOptions& options, const VocDataset& dataset, const Report& report) {
  fmt::print("{} {}, {} images, AP by {} at IoU 0.5\n\n", dataset.directory, dataset.set, report.images,
             options.metric == "voc07" ? "11 points (voc07)" : "area (voc)");
  std::size_t width = 5;
  for (const VocClassScore& one : report.score.classes) width = std::max(width, one.name.size());
  const auto row = [&](const std::string& name, const std::string& ap, const std::string& rounded,
                       const std::string& objects, const std::string& found, const std::string& recall) {
    fmt::print("{:<{}}  {:>7}  {:>7}  {:>8}  {:>10}  {:>10}\n", name, width, ap, rounded, objects, found,
               recall);
  };
  row("class", "AP", "rounded", "objects", "detections", "max recall");
  for (const VocClassScore& one : report.score.classes) {
    row(one.name, cell(one.ap), cell(one.ap_rounded), fmt::to_string(one.positives),
        fmt::to_string(one.detections), one.positives ? cell(one.max_recall) : "-");
  }
  fmt::print("{:<{}}  {:>7}  {:>7}\n", "mean", width, cell(report.score.map), cell(report.score.map_rounded));
  if (report.recall) {
    fmt::print(
        "\nproposal recall {:.4f} (IoU 0.50:0.95; {:.4f} at 0.50, {:.4f} at 0.70; small {}, medium {}, large "
        "{})\n",
        report.recall->average, report.recall->recall[0], report.recall->recall[4],
        cell(report.recall_by_area[0] ? std::optional(report.recall_by_area[0]->average) : std::nullopt),
        cell(report.recall_by_area[1] ? std::optional(report.recall_by_area[1]->average) : std::nullopt),
        cell(report.recall_by_area[2] ? std::optional(report.recall_by_area[2]->average) : std::nullopt));
  }
  fmt::print("\n{:.1f} seconds{}\n", report.seconds, report.device.empty() ? "" : " on " + report.device);
}

int evaluate(const EvalOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const VocDataset dataset = read_voc_dataset(voc_directory(options.data), options.set);
  report_remarks(dataset);
  std::shared_ptr<const Model> model;
  if (!options.model.empty()) model = load_model(options.model);
  const std::vector<std::string> classes = classes_to_score(model.get(), dataset);
  const Found found =
      options.from_detections.empty() ? detect_all(options, model, dataset) : read_all(options, dataset);

  std::vector<std::vector<NamedDetection>> detections(found.images.size());
  for (std::size_t i = 0; i < found.images.size(); ++i) {
    for (const LabelledDetection& one : found.images[i].detections) {
      detections[i].push_back({one.label, one.score, one.box});
    }
  }
  Report report;
  report.images = dataset.images.size();
  report.device = found.device;
  report.score = voc_score(dataset, classes, detections,
                           options.metric == "voc07" ? VocMetric::eleven_point : VocMetric::area);
  if (found.proposals) {
    report.recall = proposal_recall(dataset, *found.proposals);
    for (std::size_t i = 0; i < area_ranges.size(); ++i) {
      report.recall_by_area[i] = proposal_recall(dataset, *found.proposals, area_ranges[i]);
    }
  }
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!options.json.empty()) write_text(options.json, report_json(options, report));
  if (options.json != "-") print_table(options, dataset, report);
  return exit_ok;
}

}  // namespace

void add_eval(CLI::App& app, Action& action) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App* command = app.add_subcommand("eval", "Measure a model's mean average precision on a dataset");
  command
      ->add_option("MODEL", options->model,
                   "A model that `frcnn convert` wrote; not needed with --from-detections")
      ->type_name("");
  command->add_option("--data", options->data, "The dataset's directory, in the layout of PASCAL VOC")
      ->required()
      ->type_name("[voc:]DIR");
  command->add_option("--set", options->set, "The image set: ImageSets/Main/NAME.txt")
      ->required()
      ->type_name("NAME");
  command
      ->add_option("--metric", options->metric,
                   "voc07: 11 points, as for VOC2007; voc: area, as from VOC2010 on")
      ->check(CLI::IsMember({"voc07", "voc"}).description(""))
      ->type_name("NAME")
      ->capture_default_str();
  const std::string group = "What it writes and reads";
  command
      ->add_option("--json", options->json, "The scores as JSON; - is standard output, instead of the table")
      ->type_name("FILE|-")
      ->group(group);
  CLI::Option* out = command
                         ->add_option("--detections", options->detections,
                                      "Everything detected, as `detect --json` writes it")
                         ->type_name("FILE")
                         ->group(group);
  command
      ->add_option("--from-detections", options->from_detections,
                   "Score such a file instead of detecting; no image is read")
      ->type_name("FILE")
      ->excludes(out)
      ->group(group);
  add_device_options(*command, options->device);
  add_batch_option(*command, options->batch, "Images detected at once, in the order of the set");
  command->footer(eval_help);
  command->callback([&action, options] {
    if (options->model.empty() && options->from_detections.empty()) {
      throw CLI::RequiredError("MODEL (or --from-detections FILE)");
    }
    if (options->json == "-" && options->detections == "-") {
      throw CLI::ValidationError("--json and --detections cannot both go to standard output");
    }
    action = [options] { return evaluate(*options); };
  });
}

}  // namespace frcnn
