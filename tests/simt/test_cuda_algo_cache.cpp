// What is measured, when, and how it is remembered: the choice auto, with fake libraries on the fake runtime.
#include <filesystem>

#include "model_io/algo_cache.h"
#include "tests/simt/algo_fixture.h"

using namespace frcnn;
using namespace frcnn::simt_test;
using simt::FakeMachine;

namespace {

const GpuOptions kAuto = gpu_with(Algo::automatic), kTune = gpu_with(Algo::automatic, true);

// Says how long the libraries' kernels take; one of ours takes a millisecond.
void library_takes(FakeMachine& machine, const FakeLibraries& libraries, double ms) {
  const void *const cudnn = libraries.cudnn.kernel, *const cublaslt = libraries.cublaslt.kernel;
  machine.kernel_ms([=](const void* kernel) { return kernel == cudnn || kernel == cublaslt ? ms : 1.0; });
}

}  // namespace

TEST_CASE("auto measures only when it is asked to, and then takes what is faster", "[algos]") {
  FakeMachine machine;
  FakeLibraries libraries;
  library_takes(machine, libraries, 0.25);
  const auto model = small_model();
  const Picture picture(32, 24, 1);
  const DetectResult expected = Detector(model, options()).detect(picture.view);

  machine.reset_counts();
  Detector untuned(model, options_with(kAuto));
  CHECK(same_bits(expected, untuned.detect(picture.view)));
  CHECK(of_libraries(untuned) == 0);
  CHECK(libraries.runs() == 0);
  CHECK(machine.count("cudaEventCreate") == 0);
  CHECK_FALSE(std::filesystem::exists(libraries.cache()));

  {
    Detector tuning(model, options_with(kTune));
    CHECK(compare_detections(tuning.detect(picture.view), expected) > 0);
    CHECK(of_libraries(tuning) >= 5);
    CHECK(machine.count("cudaEventCreate") > 0);
    machine.reset_counts();
    tuning.detect(picture.view);
    CHECK(machine.count("cudaEventCreate") + machine.count("cudaMalloc") == 0);
  }
  const MachineTimes kept = read_algo_cache(libraries.cache());
  REQUIRE(kept.size() == 1);
  const auto& [name, layers] = *kept.begin();
  for (const char* part : {"Emulated GPU", "compute capability 9.0", "driver 13.0", "frcnn 0.", "cuDNN 9.19.0",
                           "cuBLASLt 13.1.0"})
    CHECK(contains(name, part));
  CHECK(layers.size() >= 5);
  std::size_t products = 0, with_pool = 0;
  for (const auto& [layer, times] : layers) {
    INFO(layer << ": " << times.ours << " " << times.ours_ms << ", " << times.library);
    REQUIRE(times.library_ms);
    const bool pools = contains(times.library, "+max_pool");
    CHECK(*times.library_ms == Approx(pools ? 1.25 : 0.25));
    CHECK(times.ours_ms >= 1.0);
    products += contains(layer, "linear");
    with_pool += pools;
  }
  CHECK(products >= 2);
  CHECK(with_pool >= 1);

  // Another process finds it there, measures nothing, and computes the same.
  machine.reset_counts();
  Detector later(model, options_with(kAuto));
  CHECK(compare_detections(later.detect(picture.view), expected) > 0);
  // A pooled map took longer by the library: that layer stays ours.
  CHECK(of_libraries(later) >= 4);
  CHECK(of_libraries(later) < kernels_of(later).size());
  CHECK(machine.count("cudaEventCreate") == 0);
  // A size that nobody measured is ours, at the first request and later.
  const Picture wider(64, 24, 1);
  const DetectResult by_ours = Detector(model, options()).detect(wider.view);
  for (int i = 0; i < 2; ++i) CHECK(compare_detections(later.detect(wider.view), by_ours) > 0);
  // Behind the proposals the size of the picture does not show.
  for (const auto& [layer, kernel] : kernels_of(later)) CHECK_FALSE(contains(kernel, "cudnn:"));
  CHECK(machine.count("cudaEventCreate") == 0);
  CHECK(read_algo_cache(libraries.cache()) == kept);
  CHECK(machine.violation() == "");
}

TEST_CASE("auto keeps what is ours where that is faster, or the library refuses to run", "[algos]") {
  FakeMachine machine;
  FakeLibraries libraries;
  const auto model = small_model();
  const Picture picture(32, 24, 1);
  const DetectResult expected = Detector(model, options()).detect(picture.view);
  const auto all_ours = [&] {
    Detector tuning(model, options_with(kTune));
    CHECK(same_bits(expected, tuning.detect(picture.view)));
    CHECK(of_libraries(tuning) == 0);
    const MachineTimes times = read_algo_cache(libraries.cache());
    std::filesystem::remove(libraries.cache());
    CHECK(times.begin()->second.size() >= 5);
    return times.begin()->second;
  };
  library_takes(machine, libraries, 40);
  all_ours();
  library_takes(machine, libraries, 0.25);
  libraries.cudnn.run_status = 3000;
  libraries.cublaslt.run_status = 15;
  for (const auto& [layer, times] : all_ours()) CHECK_FALSE(times.library_ms);
  libraries.behave();
  CHECK(machine.violation() == "");
}

TEST_CASE("what was measured is of one GPU, one driver and these versions", "[algos]") {
  FakeLibraries libraries;
  const Picture picture(32, 24, 1);
  const auto chosen = [&](const FakeMachine::Properties& properties, const GpuOptions& gpu) {
    FakeMachine machine(properties);
    library_takes(machine, libraries, 0.25);
    Detector detector(small_model(), options_with(gpu));
    detector.detect(picture.view);
    return of_libraries(detector);
  };
  FakeMachine::Properties here, older = here, newer = here;
  older.compute_capability = 80;
  newer.driver = 13020;
  CHECK(chosen(here, kTune) > 0);
  CHECK(chosen(here, kAuto) > 0);
  CHECK(chosen(older, kAuto) == 0);
  CHECK(chosen(newer, kAuto) == 0);
  for (FakeLibrary* library : {&libraries.cudnn, &libraries.cublaslt}) {
    library->version += 100;
    CHECK(chosen(here, kAuto) == 0);
    libraries.behave();
  }
  CHECK(chosen(here, kAuto) > 0);
  // Both are kept, side by side; and a file of one's own knows neither.
  CHECK(chosen(older, kTune) > 0);
  CHECK(read_algo_cache(libraries.cache()).size() == 2);
  CHECK(chosen(here, kAuto) > 0);
  GpuOptions elsewhere = kAuto;
  elsewhere.algo_cache = libraries / "deep/er/times.json";
  CHECK(chosen(here, elsewhere) == 0);
  elsewhere.tune = true;
  CHECK(chosen(here, elsewhere) > 0);
  CHECK(read_algo_cache(elsewhere.algo_cache).size() == 1);
  // Times of kernels that are not those to choose from do not count.
  MachineTimes times = read_algo_cache(elsewhere.algo_cache);
  for (auto& [layer, entry] : times.begin()->second) entry.ours += ":before";
  for (const auto& [layer, entry] : times.begin()->second)
    add_to_algo_cache(elsewhere.algo_cache, times.begin()->first, layer, entry);
  elsewhere.tune = false;
  CHECK(chosen(here, elsewhere) == 0);
}

TEST_CASE("a file that is none, and one that cannot be written, are errors that name it", "[algos]") {
  FakeMachine machine;
  FakeLibraries libraries;
  const auto model = small_model();
  GpuOptions gpu = kTune;
  gpu.algo_cache = libraries / "times.json";
  tool::write_file(gpu.algo_cache, "{\n \"format\": \"frcnn kernel times\",\n oops");
  const std::string message =
      message_of([&] { Detector(model, options_with(gpu)); }, ErrorCode::bad_file);
  CHECK(contains(message, gpu.algo_cache));
  CHECK(contains(message, "line 3"));
  CHECK(tool::read_file(gpu.algo_cache).size() > 20);   // left alone
  tool::write_file(libraries / "file", "x");
  gpu.algo_cache = libraries / "file/times.json";
  CHECK(contains(message_of([&] { Detector(model, options_with(gpu)); }, ErrorCode::io), libraries / "file"));
  CHECK(machine.allocations_alive() == 0);
  CHECK(libraries.alive() == 0);
  CHECK(machine.violation() == "");
}

// The arena was reserved when nothing was measured; programs that were measured since fit all the same.
TEST_CASE("a detector has room for whatever auto chooses", "[algos]") {
  FakeMachine machine;
  const FakeLibraries libraries;
  library_takes(machine, libraries, 0.25);
  const auto model = small_model();
  Detector untuned(model, options_with(kAuto)), libraries_only(model, options_with(gpu_with(Algo::cudnn)));
  CHECK(untuned.session().arena_bytes() == libraries_only.session().arena_bytes());
  {
    Detector tuning(model, options_with(kTune));
    CHECK(tuning.session().arena_bytes() == untuned.session().arena_bytes());
    for (const int width : {24, 32, 40}) tuning.detect(Picture(width, 24, 1).view);
  }
  Detector tuned(model, options_with(kAuto));
  CHECK(tuned.session().arena_bytes() == untuned.session().arena_bytes());
  for (const int width : {24, 32, 40}) {
    tuned.detect(Picture(width, 24, 1).view);
    CHECK(of_libraries(tuned) > 0);
  }
  CHECK(machine.violation() == "");
}

TEST_CASE("an error while something is measured leaves nothing behind", "[algos]") {
  const Picture picture(32, 24, 1);
  int all = 0;
  // At every 397th call: measuring makes thousands of them.
  for (int n = 0; n == 0 || n <= all; n += n == 0 ? 1 : 397) {
    FakeLibraries libraries;
    FakeMachine machine;
    machine.fail(n, cudaErrorLaunchFailure);
    std::string message;
    try {
      Detector detector(small_model(), options_with(kTune));
      detector.detect(picture.view);
      if (n == 0) all = machine.count_all();
    } catch (const Error& error) {
      message = error.what();
    }
    INFO("call " << n << " of " << all << ", " << machine.failed_call() << ": " << message);
    const std::string call = machine.failed_call();
    // Giving something back fails silently, and begins with taking the device.
    const bool may_pass = contains(call, "Destroy") || contains(call, "Free") || call == "cudaSetDevice";
    CHECK(machine.failed() == (n > 0));
    CHECK((!message.empty() || n == 0 || may_pass));
    CHECK(machine.allocations_alive() == 0);
    CHECK(libraries.alive() == 0);
    CHECK(machine.violation() == "");
  }
  CHECK(all > 500);
}
