#include "model_io/class_list.h"

#include <algorithm>

#include "frcnn/error.h"
#include "model_io/whole_file.h"

namespace frcnn {
namespace {

constexpr std::size_t max_class_file_bytes = 1 << 20;

std::string trimmed(const std::string& line) {
  const auto first = line.find_first_not_of(" \t\r");
  if (first == std::string::npos) return {};
  return line.substr(first, line.find_last_not_of(" \t\r") - first + 1);
}

}  // namespace

std::vector<std::string> read_class_list(const std::string& source) {
  if (source == "voc") return voc_classes();
  if (source == "coco") return coco_classes();
  const std::string text = read_whole_file(source, max_class_file_bytes);
  std::vector<std::string> names;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = trimmed(text.substr(at, end - at));
    at = end + 1;
    if (line.empty()) continue;
    if (std::find(names.begin(), names.end(), line) != names.end())
      throw Error(ErrorCode::bad_file, source + ": the class " + line + " is there twice");
    names.push_back(line);
  }
  if (names.empty()) throw Error(ErrorCode::bad_file, source + ": no class names");
  if (names.front() == "background") names.front() = "__background__";
  if (names.front() != "__background__") names.insert(names.begin(), "__background__");
  return names;
}

std::vector<std::string> voc_classes() {
  return {"__background__",
          "aeroplane",
          "bicycle",
          "bird",
          "boat",
          "bottle",
          "bus",
          "car",
          "cat",
          "chair",
          "cow",
          "diningtable",
          "dog",
          "horse",
          "motorbike",
          "person",
          "pottedplant",
          "sheep",
          "sofa",
          "train",
          "tvmonitor"};
}

std::vector<std::string> coco_classes() {
  return {"__background__",
          "person",
          "bicycle",
          "car",
          "motorcycle",
          "airplane",
          "bus",
          "train",
          "truck",
          "boat",
          "traffic light",
          "fire hydrant",
          "stop sign",
          "parking meter",
          "bench",
          "bird",
          "cat",
          "dog",
          "horse",
          "sheep",
          "cow",
          "elephant",
          "bear",
          "zebra",
          "giraffe",
          "backpack",
          "umbrella",
          "handbag",
          "tie",
          "suitcase",
          "frisbee",
          "skis",
          "snowboard",
          "sports ball",
          "kite",
          "baseball bat",
          "baseball glove",
          "skateboard",
          "surfboard",
          "tennis racket",
          "bottle",
          "wine glass",
          "cup",
          "fork",
          "knife",
          "spoon",
          "bowl",
          "banana",
          "apple",
          "sandwich",
          "orange",
          "broccoli",
          "carrot",
          "hot dog",
          "pizza",
          "donut",
          "cake",
          "chair",
          "couch",
          "potted plant",
          "bed",
          "dining table",
          "toilet",
          "tv",
          "laptop",
          "mouse",
          "remote",
          "keyboard",
          "cell phone",
          "microwave",
          "oven",
          "toaster",
          "sink",
          "refrigerator",
          "book",
          "clock",
          "vase",
          "scissors",
          "teddy bear",
          "hair drier",
          "toothbrush"};
}

}  // namespace frcnn
