// Lists of class names: the published data sets' and files.
#pragma once

#include <string>
#include <vector>

namespace frcnn {

std::vector<std::string> voc_classes();   // 21, the background first
std::vector<std::string> coco_classes();  // 81, the background first

// "voc", "coco", or a file with one name per line, where the background may stand first. The result begins
// with
// "__background__". Throws Error(io) or Error(bad_file) for an empty list or a name that is there twice.
std::vector<std::string> read_class_list(const std::string& source);

}  // namespace frcnn
