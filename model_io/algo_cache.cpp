#include "model_io/algo_cache.h"

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "frcnn/error.h"
#include "model_io/atomic_file.h"
#include "model_io/json_values.h"
#include "model_io/whole_file.h"

namespace frcnn {
namespace {

namespace fs = std::filesystem;
using json_values::max_json_bytes;

}  // namespace

std::string default_algo_cache() {
  const char* const cache = std::getenv("XDG_CACHE_HOME");
  if (cache && *cache == '/') return (fs::path(cache) / "frcnn" / "algos.json").string();   // others do not count
  const char* const home = std::getenv("HOME");
  return home && *home ? (fs::path(home) / ".cache" / "frcnn" / "algos.json").string() : "";
}

MachineTimes read_algo_cache(const std::string& path) {
  std::error_code refused;
  if (path.empty() || !fs::exists(path, refused)) {
    if (refused) throw Error(ErrorCode::io, fmt::format("{}: {}", path, refused.message()));
    return {};
  }
  return kernel_times_from_json(read_whole_file(path, max_json_bytes), path);
}

void add_to_algo_cache(const std::string& path, const std::string& machine, const std::string& layer,
                       const KernelTimes& times) {
  if (const fs::path folder = fs::path(path).parent_path(); !folder.empty()) {
    std::error_code refused;
    fs::create_directories(folder, refused);
    if (refused) throw Error(ErrorCode::io, fmt::format("{}: {}", folder.string(), refused.message()));
  }
  MachineTimes all = read_algo_cache(path);
  all[machine][layer] = times;
  std::string text = kernel_times_to_json(all);
  if (text.size() > max_json_bytes) {  // other GPUs, drivers and versions make room
    const LayerTimes own = std::move(all[machine]);
    text = kernel_times_to_json({{machine, own}});
  }
  if (text.size() <= max_json_bytes) write_atomically(path, text);
}

}  // namespace frcnn
