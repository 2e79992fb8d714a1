// Any text as a model configuration: an Error, or a configuration whose JSON is a fixed point.
// Lines after the first NUL byte are tried as `key=value` of --set.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "frcnn/error.h"
#include "model_io/model_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const std::size_t nul = text.find('\0');
  frcnn::ModelConfig config;
  try {
    config = frcnn::config_from_json(text.substr(0, nul), "fuzz");
    const std::string once = frcnn::config_to_json(config);
    if (frcnn::config_to_json(frcnn::config_from_json(once, "fuzz")) != once) std::abort();
  } catch (const frcnn::Error&) {
    config = {};
  }
  if (nul == std::string::npos) return 0;
  for (std::size_t at = nul + 1; at < size;) {
    const std::size_t end = std::min(text.find('\n', at), size), equals = std::min(text.find('=', at), end);
    try {
      frcnn::set_config(config, text.substr(at, equals - at), equals < end ? text.substr(equals + 1, end - equals - 1) : "");
    } catch (const frcnn::Error&) {
    }
    at = end + 1;
  }
  return 0;
}
