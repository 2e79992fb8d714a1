// The suite for a machine with a GPU: every op case, the detectors and the emulator's conformance test, on
// CUDA device 0. tools/gpu_suite runs it. Built over the emulator it is a test of itself.
//
//   frcnn_gpu_suite --probe                  one line of JSON: the device, or why there is none
//   frcnn_gpu_suite [CATCH OPTIONS]          needs the device, but for those that only list
//
// When a case has left the device's context unusable, the program ends before the next one with exit code 3.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#if __has_include(<catch2/catch_session.hpp>)
#include <catch2/catch_session.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/reporters/catch_reporter_event_listener.hpp>
#include <catch2/reporters/catch_reporter_registrars.hpp>
using EventListener = Catch::EventListenerBase;
#else
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
using EventListener = Catch::TestEventListenerBase;
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

// {"device": {...}}, or {"error": "..."}: with "no_device": true where there is no GPU, and without where
// there is one that does not work.
nlohmann::json probe() {
#if defined(FRCNN_SIMT)
  return {{"device", {{"name", "emulator, no GPU"}, {"emulated", true}}}};
#else
  int driver = 0, runtime = 0, devices = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  const auto none = [&](const std::string& why, bool no_device) {
    const auto version = [](int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); };
    nlohmann::json found{{"error", why + " (driver for CUDA " + version(driver) + ", built with CUDA " +
                                       version(runtime) + ")"}};
    if (no_device) found["no_device"] = true;
    return found;
  };
  const cudaError_t status = cudaGetDeviceCount(&devices);
  const bool no_driver = status == cudaErrorInsufficientDriver && driver == 0;
  if (status != cudaSuccess)
    return none(cudaGetErrorString(status), status == cudaErrorNoDevice || no_driver);
  if (devices == 0) return none("no device", true);
  cudaDeviceProp p{};
  if (cudaGetDeviceProperties(&p, 0) != cudaSuccess)
    return none("device 0 does not tell its properties", false);
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

// An error that ends the context would fail every case behind it; tools/gpu_suite runs those in a fresh
// process.
struct EndWithTheContext : EventListener {
  using EventListener::EventListener;
  void testCaseStarting(const Catch::TestCaseInfo&) override { look(); }
  void testCaseEnded(const Catch::TestCaseStats&) override { look(); }

 private:
  // Waits, because a kernel's mistake shows when it ends.
  static void look() {
    cudaGetLastError();
    const cudaError_t status = cudaStreamSynchronize(frcnn::test::Gpu::only().stream());
    cudaGetLastError();
    if (status == cudaSuccess) return;
    std::cout.flush();
    std::fflush(stdout);
    std::cerr << "the device cannot go on: " << cudaGetErrorString(status) << std::endl;
    std::_Exit(3);
  }
};
CATCH_REGISTER_LISTENER(EndWithTheContext)

#if defined(FRCNN_SIMT)
frcnn::simt::FakeMachine* emulated = nullptr;

TEST_CASE("the emulated device dies", "[.dies]") {
  emulated->fail(1, cudaErrorIllegalAddress, true);
  frcnn::test::Gpu::only().finish();
}

TEST_CASE("the emulated device dies unseen", "[.unseen]") {
  emulated->fail(1, cudaErrorIllegalAddress, true);
  CHECK(emulated != nullptr);
}
#endif

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
    const bool fail = !found.contains("no_device") || (required && std::strcmp(required, "1") == 0);
    std::cerr << (fail ? "FAILED" : "SKIPPED") << ": no GPU to run on: " << found["error"].get<std::string>()
              << "\n";
    return fail ? 1 : 0;
  }
#if defined(FRCNN_SIMT)
  frcnn::simt::FakeMachine machine;
  emulated = &machine;
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
