// Lists of class names for --classes.
#pragma once

#include <string>
#include <vector>

namespace frcnn {

// `given` is "voc", "coco" or a file with one name per line; the result starts with "__background__" in any
// case. Throws Error(io) or Error(bad_file) that names the file and the class.
std::vector<std::string> read_class_list(const std::string& given);

}  // namespace frcnn
