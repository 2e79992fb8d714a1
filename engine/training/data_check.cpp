#include "training/data_check.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <set>

#include "detector/anchors.h"
#include "detector/faster_rcnn.h"
#include "frcnn/error.h"
#include "model_io/image_file.h"
#include "model_io/whole_file.h"
#include "training/train_dataset.h"

namespace frcnn {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t max_text_bytes = std::size_t{16} << 20;

struct DefectName {
  Defect defect;
  const char* name;
  bool repairable;
};
constexpr DefectName defect_names[] = {
    {Defect::malformed, "malformed annotation", false},
    {Defect::no_annotation, "missing annotation", false},
    {Defect::no_image, "missing image", false},
    {Defect::broken_image, "broken image", false},
    {Defect::wrong_size, "wrong size", true},
    {Defect::counts_from_zero, "counted from 0", true},
    {Defect::inverted, "inverted", true},
    {Defect::zero_size, "zero-size", true},
    {Defect::out_of_frame, "out of frame", true},
    {Defect::duplicate, "duplicate", true},
    {Defect::contradiction, "contradiction", false},
    {Defect::unknown_class, "unknown class", false},
    {Defect::same_pixels, "same pixels", false},
    {Defect::shared_image, "shared image", false},
};

const DefectName& entry_of(Defect defect) {
  return *std::find_if(std::begin(defect_names), std::end(defect_names),
                       [&](const DefectName& one) { return one.defect == defect; });
}

Quantiles quantiles(std::vector<double> values) {
  Quantiles result;
  if (values.empty()) return result;
  std::sort(values.begin(), values.end());
  for (std::size_t i = 0; i < result.value.size(); ++i) {
    const double at = Quantiles::points[i] * static_cast<double>(values.size() - 1);
    const auto below = static_cast<std::size_t>(at);
    const double part = at - static_cast<double>(below);
    result.value[i] = values[below] + part * (values[std::min(below + 1, values.size() - 1)] - values[below]);
  }
  return result;
}

// An error's message starts with its file; findings have that apart.
std::string without(const std::string& start, const std::string& message) {
  return message.rfind(start, 0) == 0 ? message.substr(start.size()) : message;
}

class Checker {
 public:
  Checker(const std::string& directory, const DataCheckOptions& options)
      : root_(directory), options_(options) {
    for (const auto& anchor : base_anchors(options.model))
      anchors_.push_back({anchor[2] - anchor[0] + 1.0, anchor[3] - anchor[1] + 1.0});
  }

  DataReport run() {
    if (!fs::is_directory(root_ / "Annotations"))
      throw Error(ErrorCode::io,
                  fmt::format("{}: not a VOC dataset: there is no folder Annotations in it", root_.string()));
    read_sets();
    std::vector<VocAnnotation> annotations;
    for (const std::string& id : images_to_check()) read(id, annotations);
    decide_convention(annotations);
    for (std::size_t i = 0; i < annotations.size(); ++i) {
      if (options_.progress) options_.progress(i, annotations.size());
      check(annotations[i]);
    }
    finish();
    return std::move(report_);
  }

 private:
  void add(Defect defect, const std::string& file, int line, const std::string& what) {
    report_.findings.push_back({defect, file, line, what});
  }

  // Sets, and pairs of them that share images though neither is part of the other.
  void read_sets() {
    const fs::path folder = root_ / "ImageSets" / "Main";
    std::error_code none;
    for (const auto& entry : fs::directory_iterator(folder, none)) {
      if (entry.path().extension() != ".txt") continue;
      std::set<std::string>& ids = sets_[entry.path().stem().string()];
      std::string text = read_whole_file(entry.path().string(), max_text_bytes);
      for (std::size_t at = 0, line = 1; at < text.size(); ++line) {
        const std::size_t end = std::min(text.find('\n', at), text.size());
        std::string id = text.substr(at, end - at);
        at = end + 1;
        id = id.substr(0, id.find_first_of(" \t\r"));
        if (id.empty() || !ids.insert(id).second) continue;
        const bool wanted = options_.set.empty();
        if (wanted && !fs::is_regular_file(root_ / "Annotations" / (id + ".xml")))
          add(Defect::no_annotation, entry.path().string(), static_cast<int>(line),
              fmt::format("image {} has no annotation", id));
      }
      report_.sets[entry.path().stem().string()] = static_cast<std::int64_t>(ids.size());
    }
    for (auto a = sets_.begin(); a != sets_.end(); ++a)
      for (auto b = std::next(a); b != sets_.end(); ++b) {
        std::vector<std::string> both;
        std::set_intersection(a->second.begin(), a->second.end(), b->second.begin(), b->second.end(),
                              std::back_inserter(both));
        if (both.empty() || both.size() == a->second.size() || both.size() == b->second.size()) continue;
        add(Defect::shared_image, (folder / (a->first + ".txt")).string(), 0,
            fmt::format("shares {} images with {}.txt, the first is {}", both.size(), b->first,
                        both.front()));
      }
  }

  std::vector<std::string> images_to_check() const {
    std::vector<std::string> ids;
    if (!options_.set.empty()) {
      for (std::size_t at = 0; at <= options_.set.size();) {
        const std::size_t plus = std::min(options_.set.find('+', at), options_.set.size());
        const std::string name = options_.set.substr(at, plus - at);
        at = plus + 1;
        const auto set = sets_.find(name);
        if (set == sets_.end())
          throw Error(ErrorCode::io, fmt::format("{}: there is no image set {}", root_.string(), name));
        ids.insert(ids.end(), set->second.begin(), set->second.end());
      }
    } else {
      for (const auto& entry : fs::directory_iterator(root_ / "Annotations"))
        if (entry.path().extension() == ".xml") ids.push_back(entry.path().stem().string());
    }
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    return ids;
  }

  void read(const std::string& id, std::vector<VocAnnotation>& annotations) {
    const std::string path = (root_ / "Annotations" / (id + ".xml")).string();
    if (!fs::is_regular_file(path)) return add(Defect::no_annotation, path, 0, "the annotation is missing");
    try {
      annotations.push_back(parse_voc_annotation(read_whole_file(path, max_text_bytes), path));
      annotations.back().id = id;
    } catch (const Error& error) {
      // "FILE:LINE: what", or "FILE: what"
      const std::string rest = without(path + ":", error.what());
      const int line = std::atoi(rest.c_str());
      add(Defect::malformed, path, line, line > 0 ? rest.substr(rest.find(':') + 2) : rest.substr(1));
    }
  }

  // VOC's boxes count from 1 and so may reach the image's width; a set that counts from 0 has boxes at 0 and
  // none there.
  void decide_convention(const std::vector<VocAnnotation>& annotations) {
    for (const VocAnnotation& image : annotations)
      for (const VocObject& object : image.objects) {
        if (object.box[0] == 0 || object.box[1] == 0) ++report_.touching_zero;
        if ((image.width > 0 && object.box[2] == image.width) ||
            (image.height > 0 && object.box[3] == image.height))
          ++report_.touching_size;
      }
    from_zero_ = report_.touching_zero > 0 && report_.touching_size == 0;
    if (from_zero_)
      add(Defect::counts_from_zero, root_.string(), 0,
          fmt::format(
              "boxes count from 0: {} of them have a side at 0 and none reaches its image's width or height",
              report_.touching_zero));
  }

  void check(const VocAnnotation& image) {
    ++report_.images;
    report_.objects += static_cast<std::int64_t>(image.objects.size());
    if (image.objects.empty()) ++report_.without_objects;
    int width = image.width, height = image.height;
    look_at_pixels(image, width, height);
    std::map<std::array<double, 4>, std::set<std::string>> boxes;
    for (const VocObject& object : image.objects) {
      ++report_.classes[object.name];
      if (object.difficult) ++report_.difficult;
      const auto told = [&](const std::string& what) {
        return fmt::format("box {} of {} {}", fmt::join(object.box, ","), object.name, what);
      };
      if (!options_.classes.empty() && std::find(options_.classes.begin() + 1, options_.classes.end(),
                                                 object.name) == options_.classes.end())
        add(Defect::unknown_class, image.path, object.line,
            fmt::format("the class {} is not in the list", object.name));
      auto& names = boxes[object.box];
      if (!names.insert(object.name).second)
        add(Defect::duplicate, image.path, object.line, told("is there twice"));
      else if (names.size() > 1)
        add(Defect::contradiction, image.path, object.line,
            told(fmt::format("is a {} as well",
                             *names.begin() == object.name ? *names.rbegin() : *names.begin())));
      check_box(image, object, width, height, told);
    }
  }

  template <typename Told>
  void check_box(const VocAnnotation& image, const VocObject& object, int width, int height,
                 const Told& told) {
    const double first = from_zero_ ? 0 : 1;
    auto [x1, y1, x2, y2] = object.box;
    if (x2 < x1 || y2 < y1) {
      add(Defect::inverted, image.path, object.line, told("is inverted"));
      if (x2 < x1) std::swap(x1, x2);
      if (y2 < y1) std::swap(y1, y2);
    }
    const double last_x = width > 0 ? width - 1 + first : INFINITY,
                 last_y = height > 0 ? height - 1 + first : INFINITY;
    if (x1 < first || y1 < first || x2 > last_x || y2 > last_y)
      add(Defect::out_of_frame, image.path, object.line,
          told(fmt::format("leaves its image of {}x{}", width, height)));
    if (x1 == x2 || y1 == y2) {
      add(Defect::zero_size, image.path, object.line, told("has no extent"));
      return;
    }
    if (object.difficult || width < 1 || height < 1) return;
    const double scale = image_scale(options_.model, height, width);
    measure((x2 - x1 + 1) * scale, (y2 - y1 + 1) * scale);
  }

  void measure(double width, double height) {
    widths_.push_back(width);
    heights_.push_back(height);
    roots_.push_back(std::sqrt(width * height));
    aspects_.push_back(height / width);
    double best = 0;
    for (const auto& [w, h] : anchors_) {
      const double common = std::min(w, width) * std::min(h, height);
      best = std::max(best, common / (w * h + width * height - common));
    }
    ious_.push_back(best);
  }

  // Decodes the image; `width` and `height` become its own.
  void look_at_pixels(const VocAnnotation& image, int& width, int& height) {
    std::string path;
    try {
      path = voc_image_path(root_.string(), image.id);
    } catch (const Error& error) {
      return add(Defect::no_image, image.path, 0, error.what());
    }
    try {
      const Image pixels = read_image(path);
      if (image.width > 0 && (image.width != pixels.width || image.height != pixels.height))
        add(Defect::wrong_size, image.path, 0,
            fmt::format("states {}x{}, the image has {}x{} pixels", image.width, image.height, pixels.width,
                        pixels.height));
      width = pixels.width;
      height = pixels.height;
      std::uint64_t hash = 0xcbf29ce484222325u + static_cast<std::uint64_t>(width);
      for (const std::uint8_t byte : pixels.bgr) hash = (hash ^ byte) * 0x100000001b3u;
      const auto [same, fresh] = by_content_.emplace(hash, path);
      if (!fresh && read_image(same->second).bgr == pixels.bgr)
        add(Defect::same_pixels, path, 0, fmt::format("has the same pixels as {}", same->second));
    } catch (const Error& error) {
      add(Defect::broken_image, path, 0, without(path + ": ", error.what()));
    }
  }

  void finish() {
    if (!ious_.empty()) {
      const auto count = static_cast<double>(ious_.size());
      report_.reaches_positive =
          static_cast<double>(std::count_if(ious_.begin(), ious_.end(), [](double x) { return x >= 0.7; })) /
          count;
      report_.below_negative =
          static_cast<double>(std::count_if(ious_.begin(), ious_.end(), [](double x) { return x < 0.3; })) /
          count;
    }
    report_.width = quantiles(std::move(widths_));
    report_.height = quantiles(std::move(heights_));
    report_.root_area = quantiles(std::move(roots_));
    report_.aspect = quantiles(std::move(aspects_));
    report_.anchor_iou = quantiles(std::move(ious_));
  }

  const fs::path root_;
  const DataCheckOptions& options_;
  std::vector<std::array<double, 2>> anchors_;  // width, height
  std::map<std::string, std::set<std::string>> sets_;
  std::map<std::uint64_t, std::string> by_content_;
  bool from_zero_ = false;
  std::vector<double> widths_, heights_, roots_, aspects_, ious_;
  DataReport report_;
};

}  // namespace

const char* name_of(Defect defect) { return entry_of(defect).name; }
bool is_repairable(Defect defect) { return entry_of(defect).repairable; }

std::string DataFinding::message() const {
  return line > 0 ? fmt::format("{}:{}: {}", file, line, what) : fmt::format("{}: {}", file, what);
}

DataReport check_data(const std::string& directory, const DataCheckOptions& options) {
  return Checker(directory, options).run();
}

}  // namespace frcnn
