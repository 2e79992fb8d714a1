// `frcnn data check`: what is wrong with a data set, before a training trips over it.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "commands.h"
#include "counted.h"
#include "dataset_options.h"
#include "detector/anchors.h"
#include "frcnn/error.h"
#include "model_io/atomic_file.h"
#include "model_io/class_list.h"
#include "model_io/model_file.h"
#include "progress.h"
#include "training/architecture.h"
#include "training/data_check.h"
#include "training/presets.h"

namespace frcnn {
namespace {

struct Options {
  std::string data, set, classes, model, preset, json;
  bool fix = false, fix_origin = false, all = false;
};

constexpr std::size_t shown_of_a_kind = 20;

constexpr const char* data_help =
    "Examples:\n"
    "  frcnn data check VOC2007\n"
    "  frcnn data check cells --set train+val --preset bccd\n"
    "  frcnn data check cells --fix\n"
    "\n"
    "A dataset is a directory with Annotations/, ImageSets/Main/ and JPEGImages/. Found are annotations and "
    "images that are\n"
    "missing or cannot be read, stated sizes that are not the image's, boxes that count from 0, are "
    "inverted, without extent,\n"
    "out of their image or there twice, classes that are not in the list, equal images, and image sets that "
    "share images,\n"
    "are empty or list an image twice; with --set those of its images and its list alone. Notes are no "
    "faults: "
    "spellings of one\n"
    "class, a class with a single object, a set inside another.\n"
    "--fix swaps corners, cuts boxes off at the border, removes boxes without extent and repeated ones, and "
    "corrects sizes\n"
    "where all boxes lie in the image; --fix-origin moves the boxes of all checked files that count from 0. "
    "A "
    "file's first\n"
    "state stays beside it as NAME.xml.orig; a repair that is stopped goes on with the next --fix. The exit "
    "code "
    "is 0 when\n"
    "nothing is wrong (any more).";

std::vector<const DataFinding*> of_kind(const DataReport& report, Defect defect) {
  std::vector<const DataFinding*> found;
  for (const DataFinding& one : report.findings)
    if (one.defect == defect) found.push_back(&one);
  return found;
}

std::vector<Defect> kinds(const DataReport& report) {
  std::vector<Defect> all;
  for (const DataFinding& one : report.findings)
    if (std::find(all.begin(), all.end(), one.defect) == all.end()) all.push_back(one.defect);
  std::sort(all.begin(), all.end());
  return all;
}

std::string remedies(const std::vector<const DataFinding*>& found) {
  const auto count = [&](Remedy remedy) {
    return std::count_if(found.begin(), found.end(),
                         [&](const DataFinding* one) { return one->remedy == remedy; });
  };
  const auto open = count(Remedy::none), all = static_cast<std::ptrdiff_t>(found.size());
  if (open == all) return {};
  const std::string option = count(Remedy::fix) > 0 ? "--fix" : "--fix-origin";
  return open == 0 ? ", " + option + " repairs" : fmt::format(", {} repairs {}", option, all - open);
}

void print_findings(const DataReport& report, bool all) {
  for (const Defect defect : kinds(report)) {
    const auto found = of_kind(report, defect);
    fmt::print("\n{} ({}{})\n", name_of(defect), found.size(), remedies(found));
    const std::size_t shown = all ? found.size() : std::min(found.size(), shown_of_a_kind);
    for (std::size_t i = 0; i < shown; ++i) fmt::print("  {}\n", found[i]->message());
    if (shown < found.size()) fmt::print("  and {} more (--all shows them)\n", found.size() - shown);
  }
}

void print_quantiles(const DataReport& report, const ModelConfig& model) {
  fmt::print("\nBoxes in pixels of the network's input ({} / {})\n", model.short_side, model.long_side);
  fmt::print("  {:<14}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}\n", "", "least", "5 %", "25 %", "50 %", "75 %",
             "95 %", "most");
  const auto row = [](const char* name, const Quantiles& q, int digits) {
    fmt::print("  {:<14}", name);
    for (const double value : q.value) fmt::print("{:>8.{}f}", value, digits);
    fmt::print("\n");
  };
  row("width", report.width, 0);
  row("height", report.height, 0);
  row("sqrt(area)", report.root_area, 0);
  row("height/width", report.aspect, 2);
  row("best IoU", report.anchor_iou, 2);
  std::string anchors;
  for (const auto& a : base_anchors(model))
    anchors += fmt::format("{}{:.0f}x{:.0f}", anchors.empty() ? "" : ", ", a[2] - a[0] + 1, a[3] - a[1] + 1);
  fmt::print("Anchors: {}\n", anchors);
  fmt::print(
      "An anchor's shape overlaps {:.1f} % of the boxes by 0.7 or more, and {:.1f} % by less than 0.3.\n",
      100 * report.reaches_positive, 100 * report.below_negative);
}

const char* origin_text(const DataReport& report) {
  if (report.touching_size > 0) return "1, as VOC's do";
  if (!of_kind(report, Defect::counts_from_zero).empty()) return "0, VOC's from 1";
  return "1 or 0, too little shows which: taken as from 1";
}

void print_report(const DataReport& report, const Options& options, const ModelConfig& model) {
  fmt::print("{}: {}, {} ({} difficult), {} without objects\n", voc_directory(options.data),
             counted(report.images, "image"), counted(report.objects, "object"), report.difficult,
             counted(report.without_objects, "image"));
  for (const auto& [name, count] : report.classes) fmt::print("  {:<20} {:>8}\n", name, count);
  std::string sets;
  for (const auto& [name, count] : report.sets)
    sets += fmt::format("{}{} {}", sets.empty() ? "" : ", ", name, count);
  if (!sets.empty()) fmt::print("Image sets: {}\n", sets);
  fmt::print(
      "Coordinates: {} boxes end at their image's width or height, {} a pixel before, {} have a side at 0: "
      "they "
      "count from {}\n",
      report.touching_size, report.touching_last, report.touching_zero, origin_text(report));
  if (report.objects > 0) print_quantiles(report, model);
  print_findings(report, options.all);
  if (!report.notes.empty()) fmt::print("\nnotes, no faults ({})\n", report.notes.size());
  for (const std::string& note : report.notes) fmt::print("  {}\n", note);
}

nlohmann::ordered_json quantiles_json(const Quantiles& q) { return nlohmann::ordered_json(q.value); }

std::string report_json(const DataReport& report, const std::vector<DataRepair>& repairs) {
  nlohmann::ordered_json json{{"images", report.images},
                              {"objects", report.objects},
                              {"difficult", report.difficult},
                              {"without_objects", report.without_objects},
                              {"classes", report.classes},
                              {"sets", report.sets},
                              {"touching_zero", report.touching_zero},
                              {"touching_last", report.touching_last},
                              {"touching_size", report.touching_size},
                              {"quantiles", Quantiles::points},
                              {"width", quantiles_json(report.width)},
                              {"height", quantiles_json(report.height)},
                              {"root_area", quantiles_json(report.root_area)},
                              {"aspect", quantiles_json(report.aspect)},
                              {"anchor_iou", quantiles_json(report.anchor_iou)},
                              {"reaches_positive", report.reaches_positive},
                              {"below_negative", report.below_negative}};
  json["findings"] = nlohmann::ordered_json::array();
  for (const DataFinding& one : report.findings)
    json["findings"].push_back({{"defect", name_of(one.defect)},
                                {"file", one.file},
                                {"line", one.line},
                                {"what", one.what},
                                {"repairable", one.remedy != Remedy::none}});
  json["notes"] = report.notes;
  json["repairs"] = nlohmann::ordered_json::array();
  for (const DataRepair& one : repairs)
    json["repairs"].push_back({{"file", one.file}, {"original", one.original}, {"changes", one.changes}});
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

ModelConfig model_to_compare(const Options& options) {
  if (!options.model.empty()) return load_model(options.model)->config;
  return new_detector(preset(options.preset).model, {"__background__", "any"}, nullptr).config;
}

int check(const Options& options) {
  DataCheckOptions wanted;
  wanted.set = options.set;
  if (!options.classes.empty()) wanted.classes = read_class_list(options.classes);
  wanted.model = model_to_compare(options);
  std::unique_ptr<Progress> progress;
  wanted.progress = [&](std::size_t done, std::size_t total) {
    if (!progress) progress = std::make_unique<Progress>(total);
    progress->show(done, "images");
  };
  const std::string directory = voc_directory(options.data);
  const bool fixing = options.fix || options.fix_origin;
  const std::vector<std::string> finished = fixing ? finish_repair(directory) : std::vector<std::string>{};
  const DataReport report = check_data(directory, wanted);
  progress.reset();
  std::vector<DataRepair> repairs;
  if (fixing) repairs = repair_data(report, {options.fix_origin, {}});

  if (options.json == "-") {
    fmt::print("{}", report_json(report, repairs));
  } else {
    if (!finished.empty())
      fmt::print("finished an earlier repair that was stopped: {} replaced\n\n",
                 counted(finished.size(), "file"));
    print_report(report, options, wanted.model);
    for (const DataRepair& one : repairs) {
      fmt::print("\nrepaired {} (as it was: {})\n", one.file, one.original);
      for (const std::string& change : one.changes) fmt::print("  {}\n", change);
    }
  }
  if (!options.json.empty() && options.json != "-") {
    write_atomically(options.json, report_json(report, repairs));
  }
  const auto open =
      std::count_if(report.findings.begin(), report.findings.end(), [&](const DataFinding& one) {
        return one.remedy == Remedy::none || (one.remedy == Remedy::fix && !fixing) ||
               (one.remedy == Remedy::move_origin && !options.fix_origin);
      });
  if (options.json != "-")
    fmt::print("\n{} found{}\n", report.findings.size(),
               fixing ? fmt::format(", {} repaired", counted(repairs.size(), "file")) : "");
  return open > 0 ? exit_bad_input : exit_ok;
}

}  // namespace

void add_data(CLI::App& app, Action& action) {
  CLI::App* data = app.add_subcommand("data", "Look for mistakes in a dataset, and mend them");
  data->require_subcommand(1);
  data->footer(data_help);
  auto options = std::make_shared<Options>();
  options->preset = "py-faster-rcnn";
  CLI::App* command = data->add_subcommand("check", "Report what is wrong with a dataset");
  command->add_option("DIR", options->data, "The dataset's directory, in the layout of PASCAL VOC")
      ->required()
      ->type_name("[voc:]DIR");
  command
      ->add_option("--set", options->set,
                   "Only the images of this set (several joined with +); all annotations if not given")
      ->type_name("NAME");
  command
      ->add_option("--classes", options->classes,
                   "The classes there should be: voc, coco, or a file with one name per line")
      ->type_name("voc|coco|FILE");
  CLI::Option* model =
      command->add_option("--model", options->model, "Compare the boxes with this model's anchors")
          ->type_name("MODEL");
  command
      ->add_option("--preset", options->preset, "Compare the boxes with the anchors of this training preset")
      ->check(CLI::IsMember(preset_names()).description(""))
      ->excludes(model)
      ->type_name("NAME")
      ->capture_default_str();
  command->add_flag("--fix", options->fix,
                    "Repair what can be repaired; the originals are kept beside the files");
  command->add_flag(
      "--fix-origin", options->fix_origin,
      "As --fix, and boxes that count from 0 are moved to count from 1, in all files that are checked");
  command->add_flag("--all", options->all, "Show every finding");
  command
      ->add_option("--json", options->json, "The report as JSON; - is standard output, instead of the tables")
      ->type_name("FILE|-");
  command->footer(data_help);
  command->callback([&action, options] { action = [options] { return check(*options); }; });
}

}  // namespace frcnn
