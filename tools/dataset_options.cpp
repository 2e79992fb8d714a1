#include "dataset_options.h"

#include <string_view>

#include "frcnn/error.h"

namespace frcnn {

std::string voc_directory(const std::string& data) {
  constexpr std::string_view voc = "voc:", coco = "coco:";
  if (data.rfind(coco, 0) == 0)
    throw Error(ErrorCode::unsupported, data + ": this version reads VOC datasets only");
  return data.rfind(voc, 0) == 0 ? data.substr(voc.size()) : data;
}

}  // namespace frcnn
