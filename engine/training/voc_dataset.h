// Datasets in the layout of PASCAL VOC: Annotations/ID.xml, ImageSets/Main/SET.txt, JPEGImages/ID.jpg.
#pragma once

#include <array>
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

// Reads the image set and every annotation it names; images are not touched. Throws Error(io) or
// Error(bad_file).
VocDataset read_voc_dataset(const std::string& directory, const std::string& set);

// JPEGImages/ID with .jpg, .jpeg, .png or .bmp in lower or upper case, the first that exists. Throws
// Error(io).
std::string voc_image_path(const std::string& directory, const std::string& id);

// The names of all objects, each once, in alphabetical order.
std::vector<std::string> object_names(const VocDataset& dataset);

}  // namespace frcnn
