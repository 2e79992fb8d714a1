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

#include "frcnn/error.h"
#include "model_io/atomic_file.h"
#include "model_io/image_file.h"
#include "model_io/whole_file.h"
#include "training/data_check.h"
#include "training/voc_dataset.h"

namespace frcnn {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t max_text_bytes = std::size_t{16} << 20;
constexpr const char* side_names[] = {"xmin", "ymin", "xmax", "ymax"};

void write_text(const std::string& path, const std::string& text) {
  write_atomically(path, [&](const Append& append) { append(text.data(), text.size()); });
}

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
  Repair(int width, int height, double shift, Edits& edits, std::vector<std::string>& changes)
      : width_(width), height_(height), shift_(shift), edits_(edits), changes_(changes) {}

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
    for (std::size_t i = 0; i < 4; ++i) {
      was[i] = node.child(side_names[i]).text().as_double();
      box[i] = was[i] + shift_;
    }
    const std::string name = object.child("name").text().get();
    const auto told = [&](const std::string& what) {
      changes_.push_back(
          fmt::format("{}: box {},{},{},{} of {} {}", line, was[0], was[1], was[2], was[3], name, what));
    };
    if (box[2] < box[0]) std::swap(box[0], box[2]);
    if (box[3] < box[1]) std::swap(box[1], box[3]);
    const bool no_extent = box[0] == box[2] || box[1] == box[3];
    const double right = width_ > 0 ? width_ : box[2], bottom = height_ > 0 ? height_ : box[3];
    const bool outside = box[0] > right || box[1] > bottom || box[2] < 1 || box[3] < 1;
    box = {std::max(box[0], 1.0), std::max(box[1], 1.0), std::min(box[2], right), std::min(box[3], bottom)};
    const char* const why = no_extent ? "is removed: it has no extent"
                            : outside ? "is removed: it lies outside its image"
                            : box[0] == box[2] || box[1] == box[3]
                                ? "is removed: nothing of it is left inside its image"
                            : !seen_.insert({box, name}).second ? "is removed: it is there twice"
                                                                : nullptr;
    if (why) {
      told(why);
      return edits_.remove_object(object);
    }
    if (box == was) return;
    told(fmt::format("becomes {},{},{},{}", box[0], box[1], box[2], box[3]));
    for (std::size_t i = 0; i < 4; ++i)
      if (box[i] != was[i]) edits_.set(node.child(side_names[i]), number_text(box[i]));
  }

 private:
  int width_, height_;
  double shift_;
  Edits& edits_;
  std::vector<std::string>& changes_;
  std::set<std::pair<std::array<double, 4>, std::string>> seen_;
};

}  // namespace

std::string repaired_annotation(const std::string& xml, int width, int height, double shift,
                                std::vector<std::string>& changes) {
  // Values as they stand in the text.
  constexpr unsigned int parse = pugi::parse_minimal | pugi::parse_cdata;
  pugi::xml_document document;
  if (!document.load_buffer(xml.data(), xml.size(), parse)) return xml;
  const pugi::xml_node root = document.child("annotation");
  std::vector<std::string> made;
  Edits edits(xml);
  Repair repair(width, height, shift, edits, made);
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

std::vector<DataRepair> repair_data(const DataReport& report) {
  std::set<std::string> files;
  double shift = 0;
  for (const DataFinding& finding : report.findings) {
    if (finding.defect == Defect::counts_from_zero) {
      shift = 1;
      for (const auto& entry : fs::directory_iterator(fs::path(finding.file) / "Annotations"))
        if (entry.path().extension() == ".xml") files.insert(entry.path().string());
    } else if (is_repairable(finding.defect)) {
      files.insert(finding.file);
    }
  }
  std::vector<DataRepair> repairs;
  for (const std::string& file : files) {
    const std::string xml = read_whole_file(file, max_text_bytes);
    int width = 0, height = 0;
    try {
      const VocAnnotation image = parse_voc_annotation(xml, file);
      width = image.width;
      height = image.height;
    } catch (const Error&) {
      continue;  // malformed: nothing in it can be trusted
    }
    try {
      const Image pixels = read_image(voc_image_path(fs::path(file).parent_path().parent_path().string(),
                                                     fs::path(file).stem().string()));
      width = pixels.width;
      height = pixels.height;
    } catch (const Error&) {  // missing or broken, as the check has told: the stated size must do
    }
    DataRepair repair{file, file + ".orig", {}};
    const std::string mended = repaired_annotation(xml, width, height, shift, repair.changes);
    if (repair.changes.empty()) continue;
    if (!fs::exists(repair.original)) write_text(repair.original, xml);
    write_text(file, mended);
    repairs.push_back(std::move(repair));
  }
  return repairs;
}

}  // namespace frcnn
