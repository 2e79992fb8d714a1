// Any bytes as a file of detections or proposals; what is accepted must be written and read back unchanged.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "frcnn/error.h"
#include "model_io/detections_json.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const std::string once = frcnn::detections_to_json(frcnn::detections_from_json(text, "fuzz"));
    if (frcnn::detections_to_json(frcnn::detections_from_json(once, "fuzz")) != once) __builtin_trap();
  } catch (const frcnn::Error&) {
  }
  try {
    const std::string once = frcnn::proposals_to_json(frcnn::proposals_from_json(text, "fuzz"));
    if (frcnn::proposals_to_json(frcnn::proposals_from_json(once, "fuzz")) != once) __builtin_trap();
  } catch (const frcnn::Error&) {
  }
  return 0;
}
