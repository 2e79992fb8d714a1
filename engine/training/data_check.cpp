#include "training/data_check.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <set>
#include <span>

#include "detector/anchors.h"
#include "detector/faster_rcnn.h"
#include "frcnn/error.h"
#include "model_io/image_file.h"
#include "training/train_dataset.h"

namespace frcnn {
namespace {

namespace fs = std::filesystem;

struct DefectName {
  Defect defect;
  const char* name;
  Remedy remedy;
};
constexpr DefectName defect_names[] = {
    {Defect::unfinished_repair, "unfinished repair", Remedy::fix},
    {Defect::no_data, "no data", Remedy::none},
    {Defect::bad_set, "unusable image set", Remedy::none},
    {Defect::listed_twice, "listed twice", Remedy::none},
    {Defect::malformed, "malformed annotation", Remedy::none},
    {Defect::no_annotation, "missing annotation", Remedy::none},
    {Defect::no_image, "missing image", Remedy::none},
    {Defect::broken_image, "broken image", Remedy::none},
    {Defect::wrong_size, "wrong size", Remedy::fix},
    {Defect::counts_from_zero, "counted from 0", Remedy::move_origin},
    {Defect::inverted, "inverted", Remedy::fix},
    {Defect::zero_size, "zero-size", Remedy::fix},
    {Defect::out_of_frame, "out of frame", Remedy::fix},
    {Defect::duplicate, "duplicate", Remedy::fix},
    {Defect::contradiction, "contradiction", Remedy::none},
    {Defect::unknown_class, "unknown class", Remedy::none},
    {Defect::same_pixels, "same pixels", Remedy::none},
    {Defect::shared_image, "shared image", Remedy::none},
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

// "LINE: what" of an error's message after its file; 0 for one without a line.
int take_line(std::string& message) {
  int line = 0;
  const char* const end = message.data() + message.size();
  const auto [rest, error] = std::from_chars(message.data(), end, line);
  if (error != std::errc() || end - rest < 2 || rest[0] != ':') return 0;
  message.erase(0, static_cast<std::size_t>(rest + 2 - message.data()));
  return line;
}

class Checker {
 public:
  Checker(const std::string& directory, const DataCheckOptions& options)
      : root_(directory), options_(options) {
    report_.directory = directory;
    if (!options.classes.empty()) classes_ = ClassNames(std::span(options.classes).subspan(1));
    for (const auto& anchor : base_anchors(options.model))
      anchors_.push_back({anchor[2] - anchor[0] + 1.0, anchor[3] - anchor[1] + 1.0});
  }

  DataReport run() {
    if (std::error_code none; !fs::is_directory(root_ / "Annotations", none))
      throw Error(ErrorCode::io,
                  fmt::format("{}: not a VOC dataset: there is no folder Annotations in it", root_.string()));
    if (repair_is_unfinished(root_.string()))
      add(Defect::unfinished_repair, (root_ / "Annotations").string(), 0,
          "a repair was stopped in the middle: some files are mended, some are not");
    read_sets();
    compare_sets();
    std::vector<VocAnnotation> annotations;
    const std::vector<std::string> ids = images_to_check();
    if (ids.empty() && options_.set.empty())
      add(Defect::no_data, (root_ / "Annotations").string(), 0, "there is no annotation (ID.xml)");
    for (const std::string& id : ids) read(id, annotations);
    decide_origin(annotations);
    name_classes(annotations);
    for (std::size_t i = 0; i < annotations.size(); ++i) {
      if (options_.progress) options_.progress(i, annotations.size());
      check(annotations[i]);
    }
    finish();
    return std::move(report_);
  }

 private:
  struct Place {
    std::string file;
    int line = 0;
  };
  using ImageSet = std::map<std::string, Place>;  // where each of its images is listed
  using NamedSet = std::map<std::string, ImageSet>::value_type;

  void add(Defect defect, const std::string& file, int line, const std::string& what) {
    report_.findings.push_back({defect, file, line, what, entry_of(defect).remedy});
  }

  void read_sets() {
    std::error_code none;
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(root_ / "ImageSets" / "Main", none))
      if (entry.path().extension() == ".txt") files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    if (files.empty())
      add(Defect::bad_set, (root_ / "ImageSets" / "Main").string(), 0,
          "there is no image set (NAME.txt with one image to a line): nothing can be trained or evaluated");
    for (const fs::path& file : files) {
      const std::string name = file.stem().string();
      report_.sets[name] = static_cast<std::int64_t>(read_set(file.string(), wanted(name), sets_[name]));
    }
  }

  bool wanted(const std::string& set) const {
    if (options_.set.empty()) return true;
    const std::vector<std::string> names = split_sets(options_.set);
    return std::find(names.begin(), names.end(), set) != names.end();
  }

  std::size_t read_set(const std::string& file, bool checked, ImageSet& set) {
    try {
      for (const auto& [id, line] : read_image_set(file)) {
        const bool first = set.emplace(id, Place{file, line}).second;
        if (!checked) continue;
        if (!first)
          add(Defect::listed_twice, file, line, fmt::format("image {} is listed twice", id));
        else if (std::error_code none; !fs::is_regular_file(annotation_of(id), none))
          add(Defect::no_annotation, file, line, fmt::format("image {} has no annotation", id));
      }
      if (checked && set.empty()) add(Defect::bad_set, file, 0, "the image set is empty");
    } catch (const Error& error) {
      if (checked) add(Defect::bad_set, file, 0, without(file + ": ", error.what()));
    }
    return set.size();
  }

  // Pairs of sets that share images though neither is part of the other, and sets inside others.
  void compare_sets() {
    for (auto a = sets_.begin(); a != sets_.end(); ++a)
      for (auto b = std::next(a); b != sets_.end(); ++b)
        if (wanted(a->first))
          compare_sets(*a, *b);
        else if (wanted(b->first))
          compare_sets(*b, *a);
  }

  void compare_sets(const NamedSet& a, const NamedSet& b) {
    std::size_t both = 0;
    std::string first;
    Place place;
    for (const auto& [id, where] : a.second)
      if (b.second.count(id) && both++ == 0) first = id, place = where;
    if (both == 0) return;
    if (both < a.second.size() && both < b.second.size())
      return add(Defect::shared_image, place.file, place.line,
                 fmt::format("shares {} image{} with {}.txt, the first is {}", both, both == 1 ? "" : "s",
                             b.first, first));
    const bool a_inside = both == a.second.size();
    const NamedSet &inner = a_inside ? a : b, &outer = a_inside ? b : a;
    if (!is_whole(inner.first, outer.first))
      report_.notes.push_back(
          fmt::format("{0}.txt lies in {1}.txt as a whole ({2} image{3}): a model that "
                      "learned from {1} cannot be judged on {0}",
                      inner.first, outer.first, both, both == 1 ? "" : "s"));
  }

  // Sets that are made to hold others: the whole, and VOC's lists of one class (cat_train beside train).
  static bool is_whole(const std::string& inner, const std::string& outer) {
    const auto role = [](const std::string& name) { return name.substr(name.rfind('_') + 1); };
    return role(outer) == "trainval" || role(outer) == "all" || role(inner) == role(outer);
  }

  std::vector<std::string> images_to_check() const {
    std::set<std::string> ids;
    if (options_.set.empty())
      for (const auto& entry : fs::directory_iterator(root_ / "Annotations"))
        if (entry.path().extension() == ".xml") ids.insert(entry.path().stem().string());
    for (const std::string& name :
         options_.set.empty() ? std::vector<std::string>{} : split_sets(options_.set)) {
      const auto set = sets_.find(name);
      if (set == sets_.end())
        throw Error(ErrorCode::io,
                    fmt::format("{}: there is no image set {}", image_set_path(root_.string(), name), name));
      for (const auto& [id, place] : set->second) ids.insert(id);
    }
    return {ids.begin(), ids.end()};
  }

  std::string annotation_of(const std::string& id) const {
    return (root_ / "Annotations" / (id + ".xml")).string();
  }

  // Where an image is listed, else its annotation.
  Place place_of(const VocAnnotation& image) const {
    for (const auto& [name, set] : sets_)
      if (const auto found = set.find(image.id); found != set.end() && wanted(name)) return found->second;
    return {image.path, 1};
  }

  void read(const std::string& id, std::vector<VocAnnotation>& annotations) {
    const std::string path = annotation_of(id);
    if (std::error_code none; !fs::is_regular_file(path, none)) return;  // told where it is listed
    try {
      annotations.push_back(parse_voc_annotation(read_voc_text(path), path));
      annotations.back().id = id;
      report_.annotations.push_back(path);
    } catch (const Error& error) {  // "FILE:LINE: what", or "FILE: what"
      std::string what = without(path + ":", error.what());
      const int line = take_line(what);
      add(Defect::malformed, path, line, line > 0 ? what : without(" ", what));
    }
  }

  void decide_origin(const std::vector<VocAnnotation>& annotations) {
    for (const VocAnnotation& image : annotations)
      for (const VocObject& object : image.objects) {
        const auto& box = object.box;
        const auto ends_at = [&](int width, int height) {
          return (image.width > 0 && box[2] == width) || (image.height > 0 && box[3] == height);
        };
        if (box[0] == 0 || box[1] == 0) ++report_.touching_zero;
        if (ends_at(image.width - 1, image.height - 1)) ++report_.touching_last;
        if (ends_at(image.width, image.height)) ++report_.touching_size;
      }
    from_zero_ = report_.touching_zero >= origin_evidence && report_.touching_last >= origin_evidence &&
                 report_.touching_size == 0;
    if (from_zero_)
      add(Defect::counts_from_zero, root_.string(), 0,
          fmt::format(
              "boxes count from 0: {} of them have a side at 0, {} end at the last pixel counted so, and "
              "none at its image's width or height",
              report_.touching_zero, report_.touching_last));
  }

  void name_classes(const std::vector<VocAnnotation>& annotations) {
    std::set<std::string> names;
    for (const VocAnnotation& image : annotations)
      for (const VocObject& object : image.objects) names.insert(object.name);
    spellings_ = first_spellings(std::move(names));
    written_ = ClassNames(spellings_);
  }

  // As training looks names up: in the list, else under the first spelling that occurs.
  const std::string& class_of(const VocObject& object) const {
    if (const auto listed = classes_.find(object.name)) return options_.classes[*listed + 1];
    return spellings_[*written_.find(object.name)];
  }

  void check(const VocAnnotation& image) {
    ++report_.images;
    report_.objects += static_cast<std::int64_t>(image.objects.size());
    if (image.objects.empty()) ++report_.without_objects;
    const std::size_t first_finding = report_.findings.size();
    int width = image.width, height = image.height;
    look_at_pixels(image, width, height);
    std::map<std::array<double, 4>, std::map<std::string, std::set<std::string>>> boxes;  // class, spellings
    for (const VocObject& object : image.objects) {
      const std::string& name = class_of(object);
      ++report_.classes[name];
      ++objects_[name][object.name];
      if (object.difficult) ++report_.difficult;
      const auto told = [&](const std::string& what) {
        return fmt::format("box {} of {} {}", fmt::join(object.box, ","), object.name, what);
      };
      if (!options_.classes.empty() && !classes_.find(object.name))
        add(Defect::unknown_class, image.path, object.line,
            fmt::format("the class {} is not in the list", object.name));
      auto& classes = boxes[object.box];
      auto& spellings = classes[name];
      if (!spellings.insert(object.name).second) {
        add(Defect::duplicate, image.path, object.line, told("is there twice"));
      } else if (spellings.size() > 1) {
        add(Defect::duplicate, image.path, object.line, told("is there twice, in another spelling"));
        report_.findings.back().remedy = Remedy::none;  // which one is meant is not for a repair to choose
      } else if (classes.size() > 1) {
        add(Defect::contradiction, image.path, object.line,
            told(fmt::format("is a {} as well", classes.begin()->first == name ? classes.rbegin()->first
                                                                               : classes.begin()->first)));
      }
      check_box(image, object, width, height, told);
    }
    if (fits_stated_size_only(image, width, height)) leave_alone(first_finding);
  }

  // The boxes were drawn in an image of another size: nothing in the file can be trusted.
  bool fits_stated_size_only(const VocAnnotation& image, int width, int height) const {
    if (image.width < 1 || (image.width == width && image.height == height)) return false;
    const int beyond = from_zero_ ? 0 : 1;
    return std::any_of(image.objects.begin(), image.objects.end(), [&](const VocObject& object) {
      return std::max(object.box[0], object.box[2]) > width - 1 + beyond ||
             std::max(object.box[1], object.box[3]) > height - 1 + beyond;
    });
  }

  void leave_alone(std::size_t first_finding) {
    for (std::size_t i = first_finding; i < report_.findings.size(); ++i) {
      DataFinding& one = report_.findings[i];
      one.remedy = Remedy::none;
      if (one.defect == Defect::wrong_size) one.what += ", and boxes leave it: it has to be mended by hand";
    }
    all_sound_ = false;
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
    if (without_extent({x1, y1, x2, y2}, first)) {
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
      const Place place = place_of(image);
      return add(Defect::no_image, place.file, place.line, error.what());
    }
    try {
      const Image pixels = read_image(path);
      if (image.width > 0 && (image.width != pixels.width || image.height != pixels.height))
        add(Defect::wrong_size, image.path, image.size_line,
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
      const Place place = place_of(image);
      add(Defect::broken_image, path, 0,
          fmt::format("{} (listed in {}:{})", without(path + ": ", error.what()), place.file, place.line));
    }
  }

  void note_classes() {
    for (const auto& [name, spellings] : objects_) {
      std::vector<std::string> others;
      for (const auto& [spelling, count] : spellings)
        if (spelling != name) others.push_back(fmt::format("{} ({})", spelling, count));
      if (!others.empty())
        report_.notes.push_back(fmt::format("the class {} is written {} as well: they count as one", name,
                                            fmt::join(others, ", ")));
      if (report_.classes.at(name) == 1)
        report_.notes.push_back(fmt::format("the class {} has a single object", name));
    }
  }

  void finish() {
    note_classes();
    if (report_.images > 0 && report_.objects == 0)
      add(Defect::no_data, (root_ / "Annotations").string(), 0,
          "no annotation that was checked has an object: there is nothing to learn");
    // Moved in part, a set would be worse than before.
    for (DataFinding& one : report_.findings) all_sound_ = all_sound_ && one.defect != Defect::malformed;
    for (DataFinding& one : report_.findings)
      if (one.defect == Defect::counts_from_zero && !all_sound_) {
        one.remedy = Remedy::none;
        one.what +=
            "; they can be moved when no annotation is malformed or drawn in an image of another size";
      }
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
  ClassNames classes_;                          // allowed, without the background
  std::vector<std::string> spellings_;          // the first of each class that occurs
  ClassNames written_;                          // of them
  std::map<std::string, std::map<std::string, std::int64_t>> objects_;  // by class and spelling
  std::map<std::string, ImageSet> sets_;
  std::map<std::uint64_t, std::string> by_content_;
  bool from_zero_ = false;
  bool all_sound_ = true;  // no annotation that nothing can be done with
  std::vector<double> widths_, heights_, roots_, aspects_, ious_;
  DataReport report_;
};

}  // namespace

const char* name_of(Defect defect) { return entry_of(defect).name; }

std::string DataFinding::message() const {
  return line > 0 ? fmt::format("{}:{}: {}", file, line, what) : fmt::format("{}: {}", file, what);
}

DataReport check_data(const std::string& directory, const DataCheckOptions& options) {
  return Checker(directory, options).run();
}

}  // namespace frcnn
