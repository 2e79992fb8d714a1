// The suite for a machine with a GPU: every op case, the detectors and the emulator's conformance test, on
// CUDA device 0. tools/gpu_suite runs it. Built over the emulator it is a test of itself.
//
//   frcnn_gpu_suite --probe        one line of JSON: the device, or why there is none
//   frcnn_gpu_suite [CATCH OPTIONS]          needs the device, but for those that only list
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#if __has_include(<catch2/catch_session.hpp>)
#include <catch2/catch_session.hpp>
#else
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#endif

#include "cuda/device.h"
#include "frcnn/error.h"
#include "ops/guarded_buffer.h"
#include "tests/gpu_suite/suite.h"

namespace frcnn::simt_test {

std::string reference_path(const std::string& name) {
  const char* const folder = std::getenv("FRCNN_SUITE_REFERENCES");
  if (!folder) throw Error(ErrorCode::io, "FRCNN_SUITE_REFERENCES is not set; tools/gpu_suite sets it");
  const std::filesystem::path path = std::filesystem::path(folder) / name;
  if (!std::filesystem::exists(path)) throw Error(ErrorCode::io, path.string() + ": no such reference");
  return path.string();
}

std::vector<std::string> detector_folders() {
  std::vector<std::string> folders;
  for (const auto& entry : std::filesystem::directory_iterator(reference_path("detectors")))
    folders.push_back(entry.path().string());
  std::sort(folders.begin(), folders.end());
  if (folders.empty()) throw Error(ErrorCode::io, "no detector among the references");
  return folders;
}

}  // namespace frcnn::simt_test

namespace {

// {"device": {...}}, or {"error": "..."} where there is none that these kernels run on.
nlohmann::json probe() {
#if defined(FRCNN_SIMT)
  return {{"device", {{"name", "emulator, no GPU"}, {"emulated", true}}}};
#else
  int driver = 0, runtime = 0, devices = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  const auto none = [&](const std::string& why) {
    return nlohmann::json{{"error", why + " (driver for CUDA " + std::to_string(driver / 1000) + "." +
                                        std::to_string(driver % 1000 / 10) + ", built with CUDA " +
                                        std::to_string(runtime / 1000) + "." +
                                        std::to_string(runtime % 1000 / 10) + ")"}};
  };
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess) return none(cudaGetErrorString(status));
  if (devices == 0) return none("no device");
  cudaDeviceProp p{};
  if (cudaGetDeviceProperties(&p, 0) != cudaSuccess) return none("device 0 does not tell its properties");
  return {{"device",
           {{"name", p.name},
            {"compute_capability", std::to_string(p.major) + "." + std::to_string(p.minor)},
            {"multiprocessors", p.multiProcessorCount},
            {"memory_bytes", p.totalGlobalMem},
            {"driver_cuda", driver},
            {"runtime_cuda", runtime},
            {"emulated", false}}}};
#endif
}

}  // namespace

int main(int argc, char** argv) {
  const nlohmann::json found = probe();
  if (argc == 2 && std::strcmp(argv[1], "--probe") == 0) {
    std::cout << found.dump() << "\n";
    return 0;
  }
  // What there is to run can be told anywhere.
  const bool asks = std::any_of(argv + 1, argv + argc, [](const char* word) {
    return std::strncmp(word, "--list", 6) == 0 || std::strncmp(word, "--lib", 5) == 0;
  });
  if (found.contains("error") && asks) return Catch::Session().run(argc, argv);
  if (found.contains("error")) {
    const char* const required = std::getenv("FRCNN_REQUIRE_GPU");
    const bool fail = required && std::strcmp(required, "1") == 0;
    std::cerr << (fail ? "FAILED" : "SKIPPED") << ": no GPU to run on: " << found["error"].get<std::string>()
              << "\n";
    return fail ? 1 : 0;
  }
#if defined(FRCNN_SIMT)
  const frcnn::simt::FakeMachine machine;
#endif
  const int result = Catch::Session().run(argc, argv);
  frcnn::test::Gpu::only().clear();
#if defined(FRCNN_SIMT)
  if (!machine.violation().empty()) {
    std::cerr << "FAILED: " << machine.violation() << "\n";
    return 1;
  }
#endif
  return result;
}
