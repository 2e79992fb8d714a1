#include "model_io/convert/class_list.h"

#include <fmt/format.h>

#include <algorithm>

#include "frcnn/error.h"
#include "model_io/convert/implied.h"
#include "model_io/whole_file.h"

namespace frcnn {

std::vector<std::string> read_class_list(const std::string& given) {
  constexpr std::size_t max_bytes = 1 << 20;
  if (given == "voc") return voc_classes();
  if (given == "coco") return coco_classes();
  const std::string text = read_whole_file(given, max_bytes);
  std::vector<std::string> names;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    at = end + 1;
    const auto first = line.find_first_not_of(" \t\r");
    if (first == std::string::npos) continue;
    line = line.substr(first, line.find_last_not_of(" \t\r") - first + 1);
    if (std::find(names.begin(), names.end(), line) != names.end())
      throw Error(ErrorCode::bad_file, fmt::format("{}: the class {} is there twice", given, line));
    names.push_back(line);
  }
  if (names.empty()) throw Error(ErrorCode::bad_file, given + ": no class names");
  if (names.front() == "background") names.front() = "__background__";
  if (names.front() != "__background__") names.insert(names.begin(), "__background__");
  return names;
}

}  // namespace frcnn
