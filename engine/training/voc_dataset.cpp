#include "training/voc_dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <optional>
#include <pugixml.hpp>
#include <set>

#include "frcnn/error.h"
#include "model_io/whole_file.h"

namespace frcnn {
namespace {

constexpr std::size_t max_text_bytes = std::size_t{16} << 20;  // of one annotation or image set

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view space = " \t\r\n";
  const std::size_t first = text.find_first_not_of(space);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(space) - first + 1);
}

int line_at(std::string_view text, std::ptrdiff_t offset) {
  const auto end =
      text.begin() + std::clamp<std::ptrdiff_t>(offset, 0, static_cast<std::ptrdiff_t>(text.size()));
  return 1 + static_cast<int>(std::count(text.begin(), end, '\n'));
}

std::optional<double> number_in(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

// One annotation being read: knows its text, so that every complaint has a line.
class Reader {
 public:
  Reader(std::string_view xml, const std::string& path) : xml_(xml), path_(path) {}

  int line(const pugi::xml_node& node) const { return line_at(xml_, node.offset_debug()); }
  std::string place(int line) const { return fmt::format("{}:{}", path_, line); }
  [[noreturn]] void fail(int line, const std::string& what) const {
    throw Error(ErrorCode::bad_file, fmt::format("{}: {}", place(line), what));
  }

  pugi::xml_node child(const pugi::xml_node& node, const char* name) const {
    const pugi::xml_node found = node.child(name);
    if (!found) fail(line(node), fmt::format("<{}> has no <{}>", node.name(), name));
    return found;
  }

  double number(const pugi::xml_node& node) const {
    const std::string_view text = trimmed(node.child_value());
    const auto value = number_in(text);
    // Larger coordinates than any image's would only overflow in somebody's arithmetic later.
    if (!value || std::abs(*value) > 1e9) {
      fail(line(node), fmt::format("<{}> is \"{}\", expected a number", node.name(), text.substr(0, 40)));
    }
    return *value;
  }

  int stated_side(const pugi::xml_node& size, const char* name) const {
    const pugi::xml_node node = size.child(name);
    if (!node) return 0;
    const double value = number(node);
    if (value < 0 || value != std::floor(value))
      fail(line(node), fmt::format("<{}> is {}, expected a whole number", name, value));
    return static_cast<int>(value);
  }

  VocObject object(const pugi::xml_node& node) const {
    VocObject object;
    object.line = line(node);
    object.name = trimmed(child(node, "name").child_value());
    if (object.name.empty()) fail(object.line, "an <object> with an empty <name>");
    if (const pugi::xml_node difficult = node.child("difficult");
        difficult && !trimmed(difficult.child_value()).empty()) {
      object.difficult = number(difficult) != 0;
    }
    const pugi::xml_node box = child(node, "bndbox");
    constexpr const char* sides[] = {"xmin", "ymin", "xmax", "ymax"};
    for (std::size_t i = 0; i < 4; ++i) object.box[i] = number(child(box, sides[i]));
    return object;
  }

 private:
  std::string_view xml_;
  const std::string& path_;
};

void remark_on(const VocAnnotation& image, const VocObject& object, const Reader& reader,
               std::vector<std::string>& remarks) {
  const auto& [x1, y1, x2, y2] = object.box;
  const char* what = nullptr;
  if (x2 < x1 || y2 < y1)
    what = "is inverted";
  else if (x1 < 1 || y1 < 1 || (image.width > 0 && x2 > image.width) ||
           (image.height > 0 && y2 > image.height))
    what = "leaves its image";
  if (what)
    remarks.push_back(fmt::format("{}: box {},{},{},{} of {} {}", reader.place(object.line), x1, y1, x2, y2,
                                  object.name, what));
}

std::string folded(std::string name) {
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return name;
}

}  // namespace

std::string read_voc_text(const std::string& path) { return read_whole_file(path, max_text_bytes); }

std::vector<ImageSetLine> read_image_set(const std::string& path) {
  const std::string text = read_voc_text(path);
  std::vector<ImageSetLine> lines;
  std::string_view rest = text;
  for (int line = 1; !rest.empty(); ++line) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view id = trimmed(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    id = id.substr(0, id.find_first_of(" \t"));  // class image sets add a label: "000012  1"
    if (!id.empty()) lines.push_back({std::string(id), line});
  }
  return lines;
}

bool without_extent(const std::array<double, 4>& box, double first) {
  const auto same = [&](double a, double b) { return std::trunc(a - first) == std::trunc(b - first); };
  return same(box[0], box[2]) || same(box[1], box[3]);
}

std::string image_set_path(const std::string& directory, const std::string& set) {
  return (std::filesystem::path(directory) / "ImageSets" / "Main" / (set + ".txt")).string();
}

std::vector<std::string> split_sets(const std::string& sets) {
  std::vector<std::string> names;
  for (std::size_t at = 0; at <= sets.size();) {
    const std::size_t plus = std::min(sets.find('+', at), sets.size());
    names.push_back(sets.substr(at, plus - at));
    at = plus + 1;
  }
  return names;
}

VocAnnotation parse_voc_annotation(std::string_view xml, const std::string& path,
                                   std::vector<std::string>* remarks) {
  const Reader reader(xml, path);
  pugi::xml_document document;
  // pugixml neither recurses while parsing nor expands entities of a document's own, so size alone bounds the
  // work.
  const pugi::xml_parse_result parsed = document.load_buffer(xml.data(), xml.size());
  if (!parsed)
    reader.fail(line_at(xml, parsed.offset), fmt::format("not well-formed XML: {}", parsed.description()));
  const pugi::xml_node root = document.child("annotation");
  if (!root) reader.fail(1, "no <annotation> in this file");
  VocAnnotation image;
  image.path = path;
  image.id = std::filesystem::path(path).stem().string();
  if (const pugi::xml_node size = root.child("size")) image.size_line = reader.line(size);
  image.width = reader.stated_side(root.child("size"), "width");
  image.height = reader.stated_side(root.child("size"), "height");
  for (const pugi::xml_node& node : root.children("object")) {
    image.objects.push_back(reader.object(node));
    if (remarks) remark_on(image, image.objects.back(), reader, *remarks);
  }
  return image;
}

VocDataset read_voc_dataset(const std::string& directory, const std::string& set) {
  const std::filesystem::path root(directory);
  std::error_code none;  // what cannot be asked for, a name too long, say, is not there
  if (!std::filesystem::is_directory(root / "Annotations", none)) {
    throw Error(ErrorCode::io,
                fmt::format("{}: not a VOC dataset: there is no folder Annotations in it", directory));
  }
  VocDataset dataset;
  dataset.directory = directory;
  dataset.set = set;
  const std::string list = image_set_path(directory, set);
  std::set<std::string> seen;
  for (const auto& [id, line] : read_image_set(list)) {
    if (!seen.insert(id).second)
      throw Error(ErrorCode::bad_file, fmt::format("{}:{}: image {} is listed twice", list, line, id));
    const std::string path = (root / "Annotations" / (id + ".xml")).string();
    if (!std::filesystem::exists(path, none))
      throw Error(
          ErrorCode::io,
          fmt::format("{}:{}: image {} has no annotation: {} is not there; `frcnn data check {}` finds "
                      "all of these",
                      list, line, id, path, directory));
    dataset.images.push_back(parse_voc_annotation(read_voc_text(path), path, &dataset.remarks));
    dataset.images.back().id = id;
  }
  if (dataset.images.empty())
    throw Error(ErrorCode::bad_file, fmt::format("{}: the image set is empty", list));
  return dataset;
}

std::string voc_image_path(const std::string& directory, const std::string& id) {
  const std::filesystem::path folder = std::filesystem::path(directory) / "JPEGImages";
  std::error_code none;
  for (const char* extension : {".jpg", ".jpeg", ".png", ".bmp", ".JPG", ".JPEG", ".PNG", ".BMP"}) {
    const std::filesystem::path path = folder / (id + extension);
    if (std::filesystem::is_regular_file(path, none)) return path.string();
  }
  throw Error(ErrorCode::io,
              fmt::format("{}: no image of this name (.jpg, .jpeg, .png or .bmp)", (folder / id).string()));
}

ClassNames::ClassNames(std::span<const std::string> names) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    exact_.emplace(names[i], i);
    folded_.emplace(folded(names[i]), i);
  }
}

std::optional<std::size_t> ClassNames::find(const std::string& name) const {
  if (const auto found = exact_.find(name); found != exact_.end()) return found->second;
  const auto found = folded_.find(folded(name));
  return found == folded_.end() ? std::nullopt : std::optional(found->second);
}

std::vector<std::string> first_spellings(std::set<std::string> names) {
  std::set<std::string> seen;
  std::erase_if(names, [&](const std::string& name) { return !seen.insert(folded(name)).second; });
  return {names.begin(), names.end()};
}

std::vector<std::string> object_names(const VocDataset& dataset) {
  std::set<std::string> names;
  for (const VocAnnotation& image : dataset.images)
    for (const VocObject& object : image.objects) names.insert(object.name);
  return first_spellings(std::move(names));
}

}  // namespace frcnn
