#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <pugixml.hpp>
#include <set>
#include <string_view>
#include <utility>

#include "frcnn/error.h"
#include "model_io/atomic_file.h"
#include "model_io/image_file.h"
#include "training/data_check.h"
#include "training/voc_dataset.h"

namespace frcnn {
namespace {

namespace fs = std::filesystem;

constexpr const char* side_names[] = {"xmin", "ymin", "xmax", "ymax"};

// Beside the annotations while a repair replaces them: all that is staged is whole.
constexpr const char* marker_name = ".frcnn-repair";
constexpr std::string_view staged_suffix = ".repaired";

// The shortest number, so that a whole one stays whole.
std::string number_text(double value) { return fmt::format("{}", value); }

// Changes to a text that pugixml has parsed, made in the text itself, so that everything else stays byte for
// byte.
class Edits {
 public:
  explicit Edits(const std::string& text) : text_(text) {}

  void set(const pugi::xml_node& element, const std::string& value) {
    const pugi::xml_node node = element.first_child();
    const std::string old = node.value();
    const auto at = static_cast<std::size_t>(node.offset_debug());
    // A document in another encoding is converted before it is parsed; its places are not ours.
    if (node.offset_debug() < 0 || text_.compare(at, old.size(), old) != 0)
      sound_ = false;
    else
      edits_[at] = {old.size(), value};
  }

  // From the blanks before <object> to the end of </object>.
  void remove_object(const pugi::xml_node& object) {
    const auto name = static_cast<std::size_t>(object.offset_debug());
    const std::size_t end = end_of_object(name);
    if (object.offset_debug() < 1 || text_.compare(name - 1, 7, "<object") != 0 || end == std::string::npos) {
      sound_ = false;
      return;
    }
    std::size_t begin = name - 1;
    while (begin > 0 && std::string_view(" \t\r\n").find(text_[begin - 1]) != std::string_view::npos) --begin;
    edits_[begin] = {end - begin, ""};
  }

  // Nothing where a place could not be found.
  std::optional<std::string> apply() const {
    if (!sound_) return std::nullopt;
    std::string text = text_;
    for (auto edit = edits_.rbegin(); edit != edits_.rend(); ++edit)
      text.replace(edit->first, edit->second.first, edit->second.second);
    return text;
  }

 private:
  // `at` lies in the start tag. Comments and CDATA may hold anything.
  std::size_t end_of_object(std::size_t at) const {
    int depth = 1;
    while ((at = text_.find('<', at)) != std::string::npos) {
      const auto starts = [&](std::string_view what) { return text_.compare(at, what.size(), what) == 0; };
      if (starts("<!--"))
        at = text_.find("-->", at);
      else if (starts("<![CDATA["))
        at = text_.find("]]>", at);
      else if (starts("<object"))
        ++depth, ++at;
      else if (starts("</object") && --depth == 0)
        return std::min(text_.find('>', at), text_.size() - 1) + 1;
      else
        ++at;
    }
    return std::string::npos;
  }

  const std::string& text_;
  std::map<std::size_t, std::pair<std::size_t, std::string>> edits_;  // by place: length, replacement
  bool sound_ = true;
};

class Repair {
 public:
  Repair(int width, int height, BoxOrigin origin, Edits& edits, std::vector<std::string>& changes)
      : width_(width),
        height_(height),
        first_(origin == BoxOrigin::one ? 1 : 0),
        shift_(origin == BoxOrigin::zero_to_one ? 1 : 0),
        edits_(edits),
        changes_(changes) {}

  void size(const pugi::xml_node& root) {
    const pugi::xml_node size = root.child("size");
    if (!size || width_ < 1 || height_ < 1) return;
    const std::pair<const char*, int> sides[] = {{"width", width_}, {"height", height_}};
    for (const auto& [name, side] : sides) {
      const pugi::xml_text text = size.child(name).text();
      if (!size.child(name) || text.as_double() == 0 || text.as_double() == side) continue;
      changes_.push_back(fmt::format("{} {} becomes {}", name, text.get(), side));
      edits_.set(size.child(name), number_text(side));
    }
  }

  void object(const pugi::xml_node& object, int line) {
    const pugi::xml_node node = object.child("bndbox");
    std::array<double, 4> box{}, was{};
    for (std::size_t i = 0; i < 4; ++i) was[i] = box[i] = node.child(side_names[i]).text().as_double();
    const std::string name = object.child("name").text().get();
    const auto told = [&](const std::string& what) {
      changes_.push_back(
          fmt::format("{}: box {},{},{},{} of {} {}", line, was[0], was[1], was[2], was[3], name, what));
    };
    if (box[2] < box[0]) std::swap(box[0], box[2]);
    if (box[3] < box[1]) std::swap(box[1], box[3]);
    const bool no_extent = without_extent(box, first_);
    const double right = width_ > 0 ? width_ - 1 + first_ : box[2],
                 bottom = height_ > 0 ? height_ - 1 + first_ : box[3];
    const bool outside = box[0] > right || box[1] > bottom || box[2] < first_ || box[3] < first_;
    box = {std::max(box[0], first_), std::max(box[1], first_), std::min(box[2], right),
           std::min(box[3], bottom)};
    const char* const why = no_extent             ? "is removed: it has no extent"
                            : outside             ? "is removed: it lies outside its image"
                            : without_extent(box, first_) ? "is removed: nothing of it is left inside its image"
                            : !seen_.insert({box, name}).second ? "is removed: it is there twice"
                                                                : nullptr;
    if (why) {
      told(why);
      return edits_.remove_object(object);
    }
    for (double& side : box) side += shift_;
    if (box == was) return;
    told(fmt::format("becomes {},{},{},{}", box[0], box[1], box[2], box[3]));
    for (std::size_t i = 0; i < 4; ++i)
      if (box[i] != was[i]) edits_.set(node.child(side_names[i]), number_text(box[i]));
  }

 private:
  int width_, height_;
  double first_, shift_;  // the first pixel's coordinate; what is added to all
  Edits& edits_;
  std::vector<std::string>& changes_;
  std::set<std::pair<std::array<double, 4>, std::string>> seen_;
};

// The picture's size; that which the annotation states where the picture cannot be read, as the check has
// told.
std::pair<int, int> true_size(const std::string& xml, const std::string& file) {
  try {
    const fs::path path(file);
    const Image pixels =
        read_image(voc_image_path(path.parent_path().parent_path().string(), path.stem().string()));
    return {pixels.width, pixels.height};
  } catch (const Error&) {
    const VocAnnotation image = parse_voc_annotation(xml, file);
    return {image.width, image.height};
  }
}

}  // namespace

std::string repaired_annotation(const std::string& xml, int width, int height, BoxOrigin origin,
                                std::vector<std::string>& changes) {
  // Values as they stand in the text.
  constexpr unsigned int parse = pugi::parse_minimal | pugi::parse_cdata;
  pugi::xml_document document;
  if (!document.load_buffer(xml.data(), xml.size(), parse)) return xml;
  const pugi::xml_node root = document.child("annotation");
  std::vector<std::string> made;
  Edits edits(xml);
  Repair repair(width, height, origin, edits, made);
  repair.size(root);
  for (const pugi::xml_node& node : root.children("object")) {
    const auto end = xml.begin() + std::clamp<std::ptrdiff_t>(node.offset_debug(), 0,
                                                              static_cast<std::ptrdiff_t>(xml.size()));
    repair.object(node, 1 + static_cast<int>(std::count(xml.begin(), end, '\n')));
  }
  const std::optional<std::string> mended = edits.apply();
  if (made.empty() || !mended) return xml;
  changes.insert(changes.end(), made.begin(), made.end());
  return *mended;
}

bool repair_is_unfinished(const std::string& directory) {
  std::error_code none;  // a name that the system refuses is one that is not there
  return fs::exists(fs::path(directory) / "Annotations" / marker_name, none);
}

std::vector<std::string> finish_repair(const std::string& directory, const DataFix& fix) {
  const fs::path folder = fs::path(directory) / "Annotations";
  const bool whole = repair_is_unfinished(directory);
  std::error_code ignored;
  std::vector<std::string> staged, replaced;
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    if (entry.path().string().ends_with(".xml" + std::string(staged_suffix)))
      staged.push_back(entry.path().string());
  std::sort(staged.begin(), staged.end());
  for (const std::string& path : staged) {
    if (whole) {
      const std::string file = path.substr(0, path.size() - staged_suffix.size());
      if (fix.replacing) fix.replacing(file);
      write_atomically(file, read_voc_text(path));
      replaced.push_back(file);
    }
    fs::remove(path, ignored);
  }
  fs::remove(folder / marker_name, ignored);
  return replaced;
}

std::vector<DataRepair> repair_data(const DataReport& report, const DataFix& fix) {
  if (repair_is_unfinished(report.directory))
    throw Error(ErrorCode::invalid_argument, report.directory + ": an earlier repair is not finished");
  std::set<std::string> files;
  BoxOrigin origin = BoxOrigin::one;
  for (const DataFinding& finding : report.findings) {
    if (finding.remedy == Remedy::fix) files.insert(finding.file);
    if (finding.defect != Defect::counts_from_zero) continue;
    const bool move = fix.move_origin && finding.remedy == Remedy::move_origin;
    origin = move ? BoxOrigin::zero_to_one : BoxOrigin::zero;
    if (move) files.insert(report.annotations.begin(), report.annotations.end());
  }
  std::vector<DataRepair> repairs;
  for (const std::string& file : files) {
    const std::string xml = read_voc_text(file);
    const auto [width, height] = true_size(xml, file);
    DataRepair repair{file, file + ".orig", {}};
    const std::string mended = repaired_annotation(xml, width, height, origin, repair.changes);
    if (repair.changes.empty()) continue;
    std::error_code none;
    if (!fs::exists(repair.original, none)) write_atomically(repair.original, xml);
    write_atomically(file + std::string(staged_suffix), mended);
    repairs.push_back(std::move(repair));
  }
  if (repairs.empty()) return repairs;
  write_atomically((fs::path(report.directory) / "Annotations" / marker_name).string(),
                   "all files are whole\n");
  finish_repair(report.directory, fix);
  return repairs;
}

}  // namespace frcnn
