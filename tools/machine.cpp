#include "machine.h"

#include <fmt/format.h>
#include <sched.h>

#include <fstream>
#include <sstream>
#include <thread>

namespace frcnn {
namespace {

// The first line of `file` that starts with `key`, without key and colon; empty if there is none.
std::string line_of(const char* file, const std::string& key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.rfind(key, 0) != 0) continue;
    const std::size_t start = line.find_first_not_of(" \t:", key.size());
    return start == std::string::npos ? "" : line.substr(start);
  }
  return "";
}

}  // namespace

std::string processor_name() {
  const std::string model = line_of("/proc/cpuinfo", "model name");
  return model.empty() ? "unknown" : model;
}

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return static_cast<int>(std::thread::hardware_concurrency());
}

std::string memory_text(const char* key) {
  std::istringstream text(line_of("/proc/meminfo", key));
  double kib = 0;
  if (!(text >> kib)) return "unknown";
  return fmt::format("{:.1f} GiB", kib / (1 << 20));
}

std::string instruction_sets() {
  std::string list;
#if defined(__x86_64__)
  const std::string flags = " " + line_of("/proc/cpuinfo", "flags") + " ";
  const auto add = [&](bool has, const char* name) {
    list += has ? (list.empty() ? "" : " ") + std::string(name) : "";
  };
  __builtin_cpu_init();
  add(__builtin_cpu_supports("sse4.2") != 0, "sse4.2");
  add(__builtin_cpu_supports("avx2") != 0, "avx2");
  add(__builtin_cpu_supports("fma") != 0, "fma");
  add(__builtin_cpu_supports("avx512f") != 0, "avx512f");
  // The compilers' names for these came late, the kernel's flags have them.
  add(flags.find(" avx512_bf16 ") != std::string::npos, "avx512_bf16");
  add(flags.find(" avx512_fp16 ") != std::string::npos, "avx512_fp16");
  add(flags.find(" amx_tile ") != std::string::npos, "amx");
#endif
  return list.empty() ? "none that matter here" : list;
}

}  // namespace frcnn
