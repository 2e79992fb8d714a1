#include "training/train_dataset.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <span>

#include "frcnn/error.h"
#include "model_io/image_file.h"

namespace frcnn {
namespace {

// FNV-1a, 64 bits.
class Fingerprint {
 public:
  void add(const std::string& text) {
    for (const char c : text) byte(static_cast<unsigned char>(c));
    byte(0);
  }
  void add(double number) { add(fmt::format("{}", number)); }
  std::uint64_t value() const { return value_; }

 private:
  void byte(unsigned char c) { value_ = (value_ ^ c) * 0x100000001b3u; }
  std::uint64_t value_ = 0xcbf29ce484222325u;
};

class Builder {
 public:
  Builder(const VocDataset& voc, std::vector<std::string> classes, const DataConfig& config)
      : voc_(voc), config_(config) {
    data_.directory = voc.directory;
    data_.set = voc.set;
    data_.classes = std::move(classes);
    if (data_.classes.empty()) {
      data_.classes = object_names(voc);
      data_.classes.insert(data_.classes.begin(), "__background__");
    }
    names_ = ClassNames(std::span(data_.classes).subspan(1));
  }

  TrainDataset build() {
    for (const VocAnnotation& image : voc_.images) add(image);
    if (unknown_objects_)
      data_.warnings.push_back(fmt::format("{} object{} of classes that are not learned: {}",
                                           unknown_objects_, unknown_objects_ == 1 ? "" : "s",
                                           fmt::join(unknown_, ", ")));
    check();
    Fingerprint print;
    for (const std::string& name : data_.classes) print.add(name);
    for (const TrainEntry& entry : data_.entries) {
      print.add(entry.name);
      print.add(entry.width);
      print.add(entry.height);
      for (const auto& object : entry.objects) {
        print.add(object.class_id);
        for (const float side : object.box) print.add(side);
      }
    }
    data_.fingerprint = print.value();
    return std::move(data_);
  }

 private:
  void add(const VocAnnotation& image) {
    TrainEntry entry;
    entry.name = image.id;
    entry.annotation = image.path;
    try {
      entry.path = voc_image_path(voc_.directory, image.id);
      entry.width = image.width;
      entry.height = image.height;
      if (entry.width < 1 || entry.height < 1) {
        const Image pixels = read_image(entry.path);
        entry.width = pixels.width;
        entry.height = pixels.height;
      }
    } catch (const Error& error) {
      if (config_.broken_images == BrokenImages::fatal) throw broken_image(error);
      data_.warnings.push_back(fmt::format("left out: {}", error.what()));
      return;
    }
    for (const VocObject& object : image.objects) add(image, object, entry);
    if (entry.objects.empty() && !config_.use_images_without_objects) return;
    data_.objects += static_cast<std::int64_t>(entry.objects.size());
    data_.entries.push_back(std::move(entry));
  }

  void add(const VocAnnotation& image, const VocObject& object, TrainEntry& entry) {
    if (object.difficult && !config_.use_difficult) return;
    const std::string place = fmt::format("{}:{}", image.path, object.line);
    const auto class_id = class_of(object, place);
    if (!class_id) return;
    const auto box = usable(object, entry, place);
    if (box) entry.objects.push_back({*box, *class_id});
  }

  std::optional<int> class_of(const VocObject& object, const std::string& place) {
    if (const auto found = names_.find(object.name)) return static_cast<int>(*found) + 1;
    if (config_.unknown_classes == UnknownClasses::error)
      throw Error(
          ErrorCode::bad_file,
          fmt::format("{}: the class {} is not among those to be learned ({}); "
                      "--set data.unknown_classes=ignore leaves such objects out",
                      place, object.name, fmt::join(data_.classes.begin() + 1, data_.classes.end(), ", ")));
    ++unknown_objects_;
    unknown_.insert(object.name);
    return std::nullopt;
  }

  // Counted from 0, or nothing where it is left out.
  std::optional<std::array<float, 4>> usable(const VocObject& object, const TrainEntry& entry,
                                             const std::string& place) {
    std::array<double, 4> box{};
    for (std::size_t i = 0; i < 4; ++i) box[i] = std::trunc(object.box[i] - 1);
    const auto told = [&](const std::string& what) {
      return fmt::format("{}: box {} of {} {}", place, fmt::join(object.box, ","), object.name, what);
    };
    const bool inverted = box[2] < box[0] || box[3] < box[1];
    const bool outside = std::min(box[0], box[2]) < 0 || std::min(box[1], box[3]) < 0 ||
                         std::max(box[0], box[2]) > entry.width - 1 ||
                         std::max(box[1], box[3]) > entry.height - 1;
    if (inverted || outside) {
      const std::string what =
          inverted ? "is inverted" : fmt::format("leaves its image of {}x{}", entry.width, entry.height);
      if (config_.bad_boxes == BadBoxes::error) throw Error(ErrorCode::bad_file, told(what));
      if (config_.bad_boxes == BadBoxes::drop) {
        data_.warnings.push_back(told(what + " and is left out"));
        return std::nullopt;
      }
      if (box[2] < box[0]) std::swap(box[0], box[2]);
      if (box[3] < box[1]) std::swap(box[1], box[3]);
      for (std::size_t i = 0; i < 2; ++i) {
        box[i] = std::max(box[i], 0.0);
        box[i + 2] = std::min(box[i + 2], (i == 0 ? entry.width : entry.height) - 1.0);
      }
      if (box[2] < box[0] || box[3] < box[1]) {
        data_.warnings.push_back(
            told(fmt::format("lies outside its image of {}x{} and is left out", entry.width, entry.height)));
        return std::nullopt;
      }
      data_.warnings.push_back(told(what + " and is repaired"));
    }
    const double side = std::min(box[2] - box[0], box[3] - box[1]) + 1;
    if (side < 2 && config_.min_box_side > 1) {  // what the check calls a fault is none to be learned
      if (config_.bad_boxes == BadBoxes::error) throw Error(ErrorCode::bad_file, told("has no extent"));
      data_.warnings.push_back(
          told("has no extent and is left out (data.min_box_side=1 would learn boxes of one pixel)"));
      return std::nullopt;
    }
    if (side < config_.min_box_side) {
      data_.warnings.push_back(told(fmt::format(
          "is narrower than {} pixels (data.min_box_side) and is left out", config_.min_box_side)));
      return std::nullopt;
    }
    return std::array<float, 4>{static_cast<float>(box[0]), static_cast<float>(box[1]),
                                static_cast<float>(box[2]), static_cast<float>(box[3])};
  }

  void check() {
    if (data_.classes.size() < 2 || data_.objects == 0)
      throw Error(ErrorCode::bad_file,
                  fmt::format("{}: the image set {} has no object to learn", data_.directory, data_.set));
    std::vector<bool> seen(data_.classes.size());
    for (const TrainEntry& entry : data_.entries)
      for (const auto& object : entry.objects) seen[static_cast<std::size_t>(object.class_id)] = true;
    for (std::size_t i = 1; i < seen.size(); ++i)
      if (!seen[i])
        data_.warnings.push_back(fmt::format("{}: the class {} does not occur in the image set {}",
                                             data_.directory, data_.classes[i], data_.set));
  }

  const VocDataset& voc_;
  const DataConfig& config_;
  TrainDataset data_;
  ClassNames names_;  // without the background
  std::int64_t unknown_objects_ = 0;
  std::set<std::string> unknown_;
};

}  // namespace

Error broken_image(const Error& error) {
  return Error(error.code(),
               fmt::format("{}; --set data.broken_images=skip leaves such images out", error.what()));
}

VocDataset read_voc_sets(const std::string& directory, const std::string& sets) {
  VocDataset all;
  std::set<std::string> seen;
  for (const std::string& set : split_sets(sets)) {
    VocDataset one = read_voc_dataset(directory, set);
    for (VocAnnotation& image : one.images) {
      if (!seen.insert(image.id).second)
        throw Error(ErrorCode::bad_file, fmt::format("{}: image {} is in more than one of the sets {}",
                                                     directory, image.id, sets));
      all.images.push_back(std::move(image));
    }
    all.remarks.insert(all.remarks.end(), one.remarks.begin(), one.remarks.end());
  }
  all.directory = directory;
  all.set = sets;
  return all;
}

TrainDataset make_train_dataset(const VocDataset& voc, std::vector<std::string> classes,
                                const DataConfig& config) {
  return Builder(voc, std::move(classes), config).build();
}

}  // namespace frcnn
