// The fake libraries where the engine looks for the real ones, and a cache of its own for what is measured.
#pragma once

#include <dlfcn.h>

#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "catch.h"
#include "cli/run_tool.h"
#include "tests/simt/detector_fixture.h"
#include "tests/simt/fake_libraries/fake_library.h"

namespace frcnn::simt_test {

// A variable of the environment for as long as this lives.
class ScopedVariable {
 public:
  ScopedVariable(std::string name, const std::string& value) : name_(std::move(name)) {
    if (const char* const before = std::getenv(name_.c_str())) before_ = before;
    setenv(name_.c_str(), value.c_str(), 1);
  }
  ~ScopedVariable() {
    if (before_)
      setenv(name_.c_str(), before_->c_str(), 1);
    else
      unsetenv(name_.c_str());
  }
  ScopedVariable(const ScopedVariable&) = delete;
  ScopedVariable& operator=(const ScopedVariable&) = delete;

 private:
  std::string name_;
  std::optional<std::string> before_;
};

// Both as they were first, for as long as this lives.
class FakeLibraries {
 public:
  FakeLibraries()
      : cudnn(control(FRCNN_FAKE_CUDNN)),
        cublaslt(control(FRCNN_FAKE_CUBLASLT)),
        cudnn_file_("FRCNN_CUDNN", FRCNN_FAKE_CUDNN),
        cublaslt_file_("FRCNN_CUBLASLT", FRCNN_FAKE_CUBLASLT),
        cache_("XDG_CACHE_HOME", folder_.path().string()),
        cudnn_before_(cudnn),
        cublaslt_before_(cublaslt) {
    reset_counts();
  }
  ~FakeLibraries() { behave(); }

  // No errors any more.
  void behave() {
    const auto restore = [](FakeLibrary& library, const FakeLibrary& before) {
      FakeLibrary as_before = before;
      as_before.handles = library.handles;
      as_before.descriptors = library.descriptors;
      as_before.runs = library.runs;
      as_before.last_math = library.last_math;
      library = as_before;
    };
    restore(cudnn, cudnn_before_);
    restore(cublaslt, cublaslt_before_);
  }
  void reset_counts() {
    for (FakeLibrary* library : {&cudnn, &cublaslt}) {
      library->runs = 0;
      library->last_math = -1;
    }
  }
  int runs() const { return cudnn.runs + cublaslt.runs; }
  int alive() const { return cudnn.handles + cublaslt.handles + cudnn.descriptors + cublaslt.descriptors; }
  std::string cache() const { return (folder_.path() / "frcnn" / "algos.json").string(); }
  std::string operator/(const std::string& name) const { return folder_ / name; }

  // What the library in `file` counts and is told.
  static FakeLibrary& control(const std::string& file) {
    void* const opened = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    REQUIRE(opened);
    const auto get = reinterpret_cast<FakeLibrary* (*)()>(dlsym(opened, "frcnn_fake_library"));
    REQUIRE(get);
    return *get();
  }
  FakeLibrary &cudnn, &cublaslt;

 private:
  tool::TempDir folder_;
  ScopedVariable cudnn_file_, cublaslt_file_, cache_;
  FakeLibrary cudnn_before_, cublaslt_before_;
};

inline GpuOptions gpu_with(Algo algo, bool tune = false) {
  GpuOptions gpu;
  gpu.algo = algo;
  gpu.tune = tune;
  return gpu;
}

inline DetectorOptions options_with(const GpuOptions& gpu, Precision precision = Precision::fp32) {
  DetectorOptions result = options("cuda:0", precision);
  result.gpu = gpu;
  return result;
}

// By layer and kernel, of the convolutions and fully connected layers of the program that ran last.
inline std::vector<std::pair<std::string, std::string>> kernels_of(Detector& detector) {
  std::vector<std::pair<std::string, std::string>> kernels;
  const Executable& program = *detector.session().latest();
  const auto& nodes = program.graph().nodes();
  for (std::size_t n = 0; n < nodes.size(); ++n)
    if (std::holds_alternative<Conv2d>(nodes[n].op) || std::holds_alternative<Linear>(nodes[n].op))
      kernels.emplace_back(nodes[n].layer, program.implementation(n));
  return kernels;
}

inline std::size_t of_libraries(Detector& detector) {
  std::size_t count = 0;
  for (const auto& [layer, kernel] : kernels_of(detector))
    count += kernel.rfind("cudnn:", 0) == 0 || kernel.rfind("cublaslt:", 0) == 0;
  return count;
}

}  // namespace frcnn::simt_test
