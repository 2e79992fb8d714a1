// Any bytes as an image: an image or an Error, within the memory that its stated size justifies.
#include <cstddef>
#include <cstdint>

#include "frcnn/error.h"
#include "model_io/image_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const frcnn::Image image = frcnn::decode_image({data, size}, "fuzz", 1 << 20);
    if (image.bgr.size() != static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height) * 3) __builtin_trap();
    if (image.bgr.size() < 1 << 14) frcnn::write_png("/dev/null", image);
  } catch (const frcnn::Error&) {
  }
  return 0;
}
