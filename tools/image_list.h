// From what the user wrote to the image files that it means.
#pragma once

#include <set>
#include <span>
#include <string>
#include <vector>

#include "model_io/detections_json.h"

namespace frcnn {

// Files stay as they are (also missing ones: reading them tells why), directories give their .jpg, .jpeg,
// .png and .bmp files sorted by name, and what names nothing but has glob characters is expanded as glob(3)
// does. A directory without images and a pattern that matches nothing add a message to `problems`.
std::vector<std::string> expand_images(const std::vector<std::string>& arguments,
                                       std::vector<std::string>& problems);

// The entry of `images` (read from `source`) for `image`: the one with this very path, else with its file
// name, else with its stem. Throws Error(invalid_argument) naming the image when there is none or when two
// fit equally well.
const ImageProposals& find_proposals(std::span<const ImageProposals> images, const std::string& source,
                                     const std::string& image);

// Names STEM.png in one directory, unique among themselves and different from the images read.
class OutputNames {
 public:
  OutputNames(std::string directory, const std::vector<std::string>& images);
  std::string next(const std::string& image);  // the path for this image's picture

 private:
  std::string directory_;
  std::set<std::string> taken_;
};

}  // namespace frcnn
