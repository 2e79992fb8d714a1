// Any text as a prototxt, and as a Python layer's parameters.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "frcnn/error.h"
#include "model_io/convert/caffe_net.h"
#include "model_io/convert/param_str.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    frcnn::parse_param_str(text, "fuzz");
  } catch (const frcnn::Error&) {
  }
  try {
    frcnn::facts_of(frcnn::parse_prototxt(text, "fuzz"), "fuzz");
  } catch (const frcnn::Error&) {
  }
  return 0;
}
