// Any bytes as a VOC annotation.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "frcnn/error.h"
#include "training/voc_dataset.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    std::vector<std::string> remarks;
    const auto image = frcnn::parse_voc_annotation({reinterpret_cast<const char*>(data), size}, "fuzz.xml", &remarks);
    for (const auto& object : image.objects) {
      if (object.name.empty() || object.line < 1) __builtin_trap();
    }
  } catch (const frcnn::Error&) {
  }
  return 0;
}
