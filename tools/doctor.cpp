// `frcnn doctor`: what this machine and this build can do, and what that means.
#include <dlfcn.h>
#include <fmt/format.h>
#include <google/protobuf/stubs/common.h>
#include <oneapi/dnnl/dnnl.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <zip.h>
#include <CLI/Version.hpp>

#include <cstdint>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "commands.h"
#include "commit.h"
#include "frcnn/error.h"
#include "machine.h"
#include "runtime/device.h"

namespace frcnn {
namespace {

using OrderedJson = nlohmann::ordered_json;

struct Finding {
  std::string name, value;
};

struct Section {
  std::string title;
  std::vector<Finding> findings;
  std::vector<std::string> meaning;  // plain sentences
};

std::string memory_limit() {
  std::ifstream in("/sys/fs/cgroup/memory.max");
  double bytes = 0;
  if (!(in >> bytes)) return "none";
  return fmt::format("{:.1f} GiB", bytes / (1 << 30));
}

Section machine_section() {
  Section section{"Machine", {}, {}};
  utsname system{};
  if (uname(&system) == 0) {
    section.findings.push_back(
        {"system", fmt::format("{} {} {}", system.sysname, system.release, system.machine)});
  }
  section.findings.push_back({"processor", processor_name()});
  section.findings.push_back(
      {"cores", fmt::format("{} usable of {}", usable_cores(), sysconf(_SC_NPROCESSORS_CONF))});
  section.findings.push_back({"instructions", instruction_sets()});
  section.findings.push_back({"oneDNN uses", dnnl_isa()});
  section.findings.push_back({"memory", memory_text("MemTotal")});
  section.findings.push_back({"memory available", memory_text("MemAvailable")});
  section.findings.push_back({"memory limit", memory_limit()});
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx2")) {
    section.meaning.push_back(
        "Without AVX2 every result is right, but convolutions are several times slower.");
  }
#endif
  return section;
}

// Tries to open what a user would name, so that what is said here is what --device does.
std::string tried(const std::string& device) {
  try {
    return "ready as " + make_device(device)->name();
  } catch (const Error& error) {
    return std::string("not usable: ") + error.what();
  }
}

std::string driver_text(const CudaFindings& cuda) {
  if (!cuda.driver.empty()) return "serves CUDA " + cuda.driver;
  // A build without CUDA has nobody to ask for the version.
  void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (!driver) return "not found (libcuda.so.1)";
  dlclose(driver);
  return "found (libcuda.so.1)";
}

Section device_section() {
  Section section{"Devices", {}, {}};
  const char* const precisions = fast_precision("cpu") == Precision::bf16 ? "fp32 and bf16" : "fp32";
  section.findings.push_back({"cpu", fmt::format("ready, {}, {} threads by default", precisions, usable_cores())});
  const CudaFindings cuda = find_cuda();
  const std::string first = tried("cuda"), driver = driver_text(cuda);
  section.findings.push_back({"cuda", first});
  for (std::size_t i = 0; i < cuda.devices.size(); ++i)
    section.findings.push_back({fmt::format("cuda:{}", i), cuda.devices[i]});
  section.findings.push_back({"NVIDIA driver", driver});
  section.findings.push_back(
      {"CUDA in this build", cuda.runtime.empty() ? "no" : cuda.runtime + ", kernels for " FRCNN_CUDA_ARCHITECTURES});
  bool usable = !cuda.runtime.empty();
  for (const LibraryFinding& library : find_gpu_libraries()) {
    section.findings.push_back({library.library, library.text});
    usable = usable && library.usable;
  }
  if (!cuda.runtime.empty()) {
    if (!cuda.problem.empty()) usable = false;
    section.meaning.push_back(usable ? "--algo cudnn and --algo auto can take kernels of cuDNN and cuBLASLt."
                                     : "--algo cudnn is refused without a usable GPU and both libraries; "
                                       "--algo ours needs none of them.");
  }
  if (cuda.runtime.empty()) {
    section.meaning.push_back(
        "This build has no CUDA device: --device cuda is refused and --device auto means cpu. It gets one when it is "
        "configured where nvcc is.");
  } else if (cuda.devices.empty()) {
    section.meaning.push_back("--device auto means cpu: " + cuda.problem + ".");
  } else {
    section.meaning.push_back(first.rfind("ready", 0) == 0 ? "--device auto means cuda:0."
                                                           : "--device auto means cpu.");
  }
  return section;
}

Section library_section() {
  Section section{"Libraries", {}, {}};
  const dnnl_version_t* dnnl = dnnl_version();
  section.findings.push_back(
      {"oneDNN", fmt::format("{}.{}.{} (built with {}.{}.{})", dnnl->major, dnnl->minor, dnnl->patch,
                             DNNL_VERSION_MAJOR, DNNL_VERSION_MINOR, DNNL_VERSION_PATCH)});
  section.findings.push_back(
      {"protobuf", google::protobuf::internal::VersionString(GOOGLE_PROTOBUF_VERSION)});
  section.findings.push_back(
      {"fmt", fmt::format("{}.{}.{}", FMT_VERSION / 10000, FMT_VERSION / 100 % 100, FMT_VERSION % 100)});
  section.findings.push_back(
      {"nlohmann-json", fmt::format("{}.{}.{}", NLOHMANN_JSON_VERSION_MAJOR, NLOHMANN_JSON_VERSION_MINOR,
                                    NLOHMANN_JSON_VERSION_PATCH)});
  section.findings.push_back({"libzip", zip_libzip_version()});
  section.findings.push_back({"CLI11", CLI11_VERSION});
  section.findings.push_back({"image files", "stb_image: JPEG, PNG, BMP"});
  if (dnnl->major != DNNL_VERSION_MAJOR) {
    section.meaning.push_back(
        "oneDNN's major version differs from the one this program was built with: rebuild it.");
  }
  return section;
}

Section build_section() {
  Section section{"Build", {}, {}};
  section.findings.push_back({"version", fmt::format("{} ({})", FRCNN_VERSION, FRCNN_COMMIT)});
#if defined(__clang__)
  section.findings.push_back({"compiler", "clang " __clang_version__});
#else
  section.findings.push_back({"compiler", "g++ " __VERSION__});
#endif
  const std::string sanitizers = FRCNN_SANITIZERS, type = FRCNN_BUILD_TYPE, openmp = FRCNN_OPENMP;
  section.findings.push_back({"type", type});
  section.findings.push_back({"sanitizers", sanitizers.empty() ? "none" : sanitizers});
  section.findings.push_back({"OpenMP", openmp.empty() ? "no" : openmp});
  if (type == "Debug") section.meaning.push_back("A Debug build is many times slower than a Release build.");
  if (!sanitizers.empty()) {
    section.meaning.push_back(
        "A build with sanitizers finds bugs; it is several times slower and no measure of speed.");
  }
  if (openmp.empty())
    section.meaning.push_back("Without OpenMP our own loops run on one core; oneDNN has its threads.");
  return section;
}

void print_human(const std::vector<Section>& sections) {
  for (const Section& section : sections) {
    fmt::print("{}\n", section.title);
    for (const Finding& finding : section.findings) fmt::print("  {:<20}{}\n", finding.name, finding.value);
    for (const std::string& sentence : section.meaning) fmt::print("  -> {}\n", sentence);
    fmt::print("\n");
  }
}

void print_json(const std::vector<Section>& sections) {
  OrderedJson json;
  for (const Section& section : sections) {
    OrderedJson& out = json[section.title];
    for (const Finding& finding : section.findings) out[finding.name] = finding.value;
    out["meaning"] = section.meaning;
  }
  fmt::print("{}\n", json.dump(1, ' ', false, OrderedJson::error_handler_t::replace));
}

int doctor(bool as_json) {
  const std::vector<Section> sections{device_section(), machine_section(), library_section(),
                                      build_section()};
  if (as_json) {
    print_json(sections);
  } else {
    print_human(sections);
  }
  return exit_ok;
}

}  // namespace

void add_doctor(CLI::App& app, Action& action) {
  auto as_json = std::make_shared<bool>(false);
  CLI::App* command = app.add_subcommand("doctor", "Tell what this machine and this build can do");
  command->add_flag("--json", *as_json, "The same as JSON");
  command->footer("Example:\n  frcnn doctor\n\nSend its output along when you report a problem.");
  command->callback([&action, as_json] { action = [as_json] { return doctor(*as_json); }; });
}

}  // namespace frcnn
