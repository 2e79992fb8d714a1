// What the emulator offers, the conformance samples use: no instruction is emulated that a GPU would not be asked about.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <string>

#include "catch.h"

namespace {

std::string text_of(const std::string& file) {
  std::ifstream in(std::string(FRCNN_SOURCE_DIR) + "/tests/simt/" + file);
  REQUIRE(in);
  const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  return std::regex_replace(text, std::regex("//[^\n]*"), "");
}

void collect(const std::string& text, const char* pattern, std::set<std::string>& names) {
  const std::regex regex(pattern);
  for (std::sregex_iterator match(text.begin(), text.end(), regex), end; match != end; ++match) names.insert((*match)[1]);
}

// Names that look like CUDA's device functions and atomics, defined by hand or by a macro, and those of ptx.h.
std::set<std::string> emulated() {
  std::set<std::string> names;
  for (const char* file : {"intrinsics.h", "half.h", "warp.h", "atomics.h"})
    collect(text_of(file), R"(\b((?:__[a-z][a-z0-9_]*|atomic[A-Z]\w*))\s*[(,])", names);
  collect(text_of("ptx_emulation.h"), R"(\b(?:void|std::uint32_t) ([a-z0-9_]+)\()", names);
  for (const char* type : {"__half", "__nv_bfloat16"}) names.erase(type);
  for (auto name = names.begin(); name != names.end();)
    name = name->rfind("__atomic_", 0) == 0 ? names.erase(name) : std::next(name);  // the compiler's own
  return names;
}

}  // namespace

TEST_CASE("every emulated instruction is in a conformance sample") {
  const std::set<std::string> names = emulated();
  CHECK(names.size() > 70);
  for (const char* known : {"__shfl_sync", "__reduce_add_sync", "atomicMax", "__hadd", "ldmatrix_x4_trans", "cp_async_zfill", "ld_acquire"})
    CHECK(names.count(known) == 1);
  const std::string samples = text_of("instructions.cu") + text_of("arithmetic.cu") + text_of("samples.cu");
  std::string missing;
  for (const std::string& name : names)
    if (name != "__trap" && !std::regex_search(samples, std::regex("\\b" + name + "\\b"))) missing += " " + name;
  CHECK(missing == "");
}

TEST_CASE("kernels use no instruction that the samples lack") {
  const std::string samples = text_of("instructions.cu") + text_of("arithmetic.cu") + text_of("samples.cu");
  // Attributes, and the plumbing of launch.h and ptx.h.
  const std::set<std::string> others{"__launch_bounds__", "__align__", "__cxa_demangle", "__cvta_generic_to_shared"};
  std::set<std::string> used;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(FRCNN_SOURCE_DIR) + "/kernels/cuda"))
    if (entry.path().extension() == ".cu" || entry.path().extension() == ".h")
      collect(text_of("../../kernels/cuda/" + entry.path().filename().string()),
              R"(\b((?:__[a-z][a-z0-9_]*|atomic[A-Z]\w*))\s*\()", used);
  CHECK(used.count("__syncthreads") == 1);
  std::string missing;
  for (const std::string& name : used)
    if (!others.count(name) && !std::regex_search(samples, std::regex("\\b" + name + "\\b"))) missing += " " + name;
  CHECK(missing == "");
}
