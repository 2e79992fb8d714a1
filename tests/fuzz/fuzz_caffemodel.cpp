// Any bytes as a caffemodel: an Error or a net, and facts of it or an Error.
#include <cstddef>
#include <cstdint>

#include "frcnn/error.h"
#include "model_io/convert/caffe_net.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto net = frcnn::parse_caffemodel({reinterpret_cast<const std::byte*>(data), size}, "fuzz");
    frcnn::facts_of(net, "fuzz");
  } catch (const frcnn::Error&) {
  }
  return 0;
}
