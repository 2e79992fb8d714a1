// Any text as a training configuration: an Error, or a configuration whose JSON is a fixed point.
// Up to eight lines after the first NUL byte are tried as `key=value` of --set.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "frcnn/error.h"
#include "model_io/train_config_json.h"

namespace {

void check_fixed_point(const frcnn::RunConfig& config) {
  const std::string once = frcnn::run_config_to_json(config);
  frcnn::RunConfig again;
  frcnn::overlay_run_config(again, once, "again");
  if (frcnn::run_config_to_json(again) != once || !frcnn::run_config_differences(again, config).empty())
    std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const std::size_t nul = text.find('\0');
  frcnn::RunConfig config;
  try {
    frcnn::overlay_run_config(config, text.substr(0, nul), "fuzz");
    check_fixed_point(config);
  } catch (const frcnn::Error&) {
    config = {};
  }
  if (nul == std::string::npos) return 0;
  std::size_t at = nul + 1;
  for (int line = 0; line < 8 && at < size; ++line) {
    const std::size_t end = std::min(text.find('\n', at), size), equals = std::min(text.find('=', at), end);
    try {
      frcnn::set_run_config(config, text.substr(at, equals - at),
                            equals < end ? text.substr(equals + 1, end - equals - 1) : "");
    } catch (const frcnn::Error&) {
    }
    at = end + 1;
  }
  return 0;
}
