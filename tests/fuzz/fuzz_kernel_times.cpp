// Any bytes as a file of measured kernels; what is accepted must be written and read back unchanged.
#include <cstddef>
#include <cstdint>
#include <string>

#include "frcnn/error.h"
#include "model_io/kernel_times.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    const frcnn::MachineTimes times = frcnn::kernel_times_from_json(text, "fuzz");
    if (frcnn::kernel_times_from_json(frcnn::kernel_times_to_json(times), "fuzz") != times) __builtin_trap();
  } catch (const frcnn::Error&) {
  }
  return 0;
}
