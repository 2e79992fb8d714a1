// What `--data` may say.
#pragma once

#include <string>

namespace frcnn {

// The directory of "voc:DIR" or "DIR". Throws Error(unsupported) for "coco:...".
std::string voc_directory(const std::string& data);

}  // namespace frcnn
