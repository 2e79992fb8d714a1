// Datasets in the layout of PASCAL VOC: Annotations/ID.xml, ImageSets/Main/SET.txt, JPEGImages/ID.jpg.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace frcnn {

struct VocObject {
  std::string name;
  bool difficult = false;
  std::array<double, 4> box{};  // xmin,ymin,xmax,ymax as written: inclusive, counted from 1
  int line = 0;                 // of the <object> in its file
};

struct VocAnnotation {
  std::string id;                  // the file's stem, as the image set names it
  std::string path;                // of the XML file, for messages
  int width = 0, height = 0;       // as stated; 0 where the file does not say
  std::vector<VocObject> objects;  // in file order
  int size_line = 0;               // of the <size>; 0 without one
};

struct VocDataset {
  std::string directory, set;
  std::vector<VocAnnotation> images;  // in the order of the image set
  // Boxes that make no sense but can be evaluated against: inverted or out of their image. "FILE:LINE: ...".
  std::vector<std::string> remarks;
};

// One annotation from its text; `path` stands for the file in messages. Throws Error(bad_file) "FILE:LINE:
// ..." for XML that is not well-formed or lacks a name, a box or a number.
VocAnnotation parse_voc_annotation(std::string_view xml, const std::string& path,
                                   std::vector<std::string>* remarks = nullptr);

// The text of an annotation or an image set. Throws Error(io), and Error(bad_file) for one that is empty or
// larger than any such file.
std::string read_voc_text(const std::string& path);

// Both sides of a direction in one pixel, as far as training can tell: it truncates. Where corners are
// inclusive such a box is one pixel wide; annotators leave them behind by a click without a drag. `first`: where
// counting begins, 1 or 0.
bool without_extent(const std::array<double, 4>& box, double first);

struct ImageSetLine {
  std::string id;
  int line = 0;
};
// The lines of an image set that name an image, repeated ones too. Throws as read_voc_text().
std::vector<ImageSetLine> read_image_set(const std::string& path);

std::string image_set_path(const std::string& directory, const std::string& set);

// "train+val": the names of the sets.
std::vector<std::string> split_sets(const std::string& sets);

// Reads the image set and every annotation it names; images are not touched. Throws Error(io) or
// Error(bad_file).
VocDataset read_voc_dataset(const std::string& directory, const std::string& set);

// JPEGImages/ID with .jpg, .jpeg, .png or .bmp in lower or upper case, the first that exists. Throws
// Error(io).
std::string voc_image_path(const std::string& directory, const std::string& id);

// Which of several classes a name means: the one of this name, else the first that differs in upper and lower
// case alone.
class ClassNames {
 public:
  ClassNames() = default;  // finds nothing
  explicit ClassNames(std::span<const std::string> names);
  std::optional<std::size_t> find(const std::string& name) const;  // index into `names`

 private:
  std::map<std::string, std::size_t> exact_, folded_;
};

// The names in alphabetical order: of several that differ in upper and lower case alone the first.
std::vector<std::string> first_spellings(std::set<std::string> names);

// Those of all objects.
std::vector<std::string> object_names(const VocDataset& dataset);

}  // namespace frcnn
