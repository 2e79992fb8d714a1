// The CUDA device and its sessions under bad use, on the emulator and the fake runtime.
#include <condition_variable>
#include <mutex>
#include <thread>

#include "tests/simt/detector_fixture.h"

using namespace frcnn;
using namespace frcnn::simt_test;
using simt::FakeMachine;

namespace {

FakeMachine::Properties machine_with(int devices, int driver = 13000, int compute_capability = 90) {
  FakeMachine::Properties properties;
  properties.devices = devices;
  properties.driver = driver;
  properties.compute_capability = compute_capability;
  return properties;
}

}  // namespace

TEST_CASE("a device that is not there is an error that says what is missing") {
  const auto why = [](const FakeMachine::Properties& properties, const std::string& name) {
    const FakeMachine machine(properties);
    const std::string message = message_of([&] { make_device(name); }, ErrorCode::unsupported);
    CHECK(machine.allocations_alive() == 0);
    return message;
  };
  CHECK(why(machine_with(2), "cuda:2") == "cuda:2: this machine has 2 CUDA devices");
  CHECK(why(machine_with(0), "cuda") == "cuda:0: the driver finds no CUDA device on this machine");
  CHECK(why(machine_with(1, 0), "cuda:0") == "cuda:0: this machine has no NVIDIA driver");
  CHECK(why(machine_with(1, 12040), "cuda") ==
        "cuda:0: the driver is too old: it serves CUDA 12.4, this build needs CUDA 13 or newer");
  CHECK(contains(why(machine_with(1, 13000, 75), "cuda"), "compute capability is 7.5"));
  FakeMachine::Properties other = machine_with(1, 13000, 103);
  other.has_code = false;
  CHECK(why(other, "cuda") ==
        "cuda:0: this build has no code for its compute capability 10.3, only for 80-real, 90a-real");
  CHECK(contains(why(machine_with(1), "cuda:99999999999999999999"), "no machine has so many"));
}

TEST_CASE("a dimension beyond 32 bits is refused when a kernel is prepared") {
  const FakeMachine machine(machine_with(1));
  const auto device = make_device("cuda:0");
  const auto why = [&](const Op& op, std::vector<TensorSpec> in, std::vector<TensorSpec> out) {
    return message_of([&] { device->prepare(op, {in, out}); }, ErrorCode::unsupported);
  };
  const std::int64_t beyond = std::int64_t{1} << 31;
  CHECK(contains(why(Relu{}, {{Shape{1, beyond}}}, {{Shape{1, beyond}}}), "relu: 1x2147483648 has a dimension of more than 2147483647"));
  const std::int64_t channels = 1 << 27;
  CHECK(contains(why(Conv2d{1, 1, {}}, {{Shape{1, 4, 4, channels}}, {Shape{8, channels, 3, 3}}, {Shape{8}}}, {{Shape{1, 4, 4, 8}}}),
                 "sums of 1207959552 products"));
}

TEST_CASE("what there is of CUDA is told without taking it into use") {
  {
    FakeMachine machine(machine_with(2, 13010, 86));
    CudaFindings found = find_cuda();
    CHECK(found.runtime == "13.0");
    CHECK(found.driver == "13.1");
    CHECK(found.problem == "");
    const std::string line = "Emulated GPU, compute capability 8.6, 4 multiprocessors, 1.0 GiB";
    CHECK(found.devices == std::vector<std::string>{line, line});
    CHECK(machine.allocations_alive() == 0);
    CHECK(machine.count("cudaSetDevice") == 0);
    machine.fail(2, cudaErrorIllegalAddress, false, "cudaGetDeviceProperties");
    found = find_cuda();
    CHECK(found.devices == std::vector<std::string>{line, "not usable: an illegal memory access was encountered"});
  }
  {
    const FakeMachine machine(machine_with(1, 0));
    const CudaFindings found = find_cuda();
    CHECK(found.driver == "");
    CHECK(found.problem == "this machine has no NVIDIA driver");
    CHECK(found.devices.empty());
  }
  const FakeMachine machine(machine_with(0));
  CHECK(find_cuda().problem == "the driver finds no CUDA device on this machine");
}

TEST_CASE("auto is the CUDA device where there is one, else the CPU") {
  {
    const FakeMachine machine(machine_with(1));
    CHECK(make_device("auto", Precision::fp16)->name() == "cuda:0");
    CHECK(make_device("cpu")->name() == "cpu");
  }
  // One that is there but cannot be used now is no reason to compute elsewhere, a hundred times slower.
  for (const auto& [error, code] : {std::pair{cudaErrorMemoryAllocation, ErrorCode::out_of_memory},
                                    std::pair{cudaErrorLaunchFailure, ErrorCode::device}}) {
    FakeMachine machine(machine_with(1));
    machine.fail(1, error, false, "cudaSetDevice");
    message_of([] { make_device("auto"); }, code);
    CHECK(machine.failed());
  }
  const FakeMachine machine(machine_with(1, 0));
  std::string why;
  CHECK(make_device("auto", Precision::fp32, 0, &why)->name() == "cpu");
  CHECK(why == "cuda:0: this machine has no NVIDIA driver");
  const std::string message =
      message_of([] { make_device("auto", Precision::fp16); }, ErrorCode::unsupported);
  CHECK(contains(message, "the CPU computes in fp32"));
  CHECK(contains(message, "no NVIDIA driver"));
}

// Kernel by kernel; as a graph: test_cuda_graphs.cpp.
TEST_CASE("a detection is an upload of pixels, one of all else, a download, one synchronisation, no allocation") {
  FakeMachine machine;
  const auto model = small_model();
  DetectorOptions eager = options();
  eager.gpu.graphs = false;
  Detector detector(model, eager);
  const Picture picture(32, 24, 1);
  const DetectResult first = detector.detect(picture.view);
  CHECK_FALSE(first.detections.empty());
  machine.reset_counts();
  CHECK(same_bits(first, detector.detect(picture.view)));
  CHECK(machine.count("cudaMemcpyAsync") == 3);
  CHECK(machine.count("cudaStreamSynchronize") == 1);
  CHECK(machine.count("launch") > 10);
  // Besides these it only selects the device.
  CHECK(machine.count_all() == 4 + machine.count("launch") + machine.count("cudaSetDevice"));
  CHECK(machine.count("cudaSetDevice") <= 5);

  // A larger original runs by the same plan.
  machine.reset_counts();
  detector.detect(Picture(40, 30, 2).view);
  CHECK(machine.count("cudaMalloc") == 0);
  CHECK(machine.count("cudaHostAlloc") == 0);
  CHECK(machine.violation() == "");
}

TEST_CASE("detectors of one model share its weights, and each has an arena and a stream of its own") {
  FakeMachine machine;
  const auto model = small_model();
  const Picture picture(32, 24, 1);
  Detector one(model, options());
  const DetectResult expected = one.detect(picture.view);
  machine.reset_counts();
  {
    Detector two(model, options());
    CHECK(machine.count("cudaMalloc") == 2);  // the arena, and room for an original
    CHECK(machine.count("cudaStreamCreateWithFlags") == 1);
    CHECK(machine.count("cudaMemcpyAsync") == 0);
    CHECK(same_bits(expected, two.detect(picture.view)));
    CHECK(machine.count("cudaMalloc") == 2);
    CHECK(same_bits(expected, one.detect(picture.view)));
  }
  CHECK(same_bits(expected, one.detect(picture.view)));  // what two gave back was not one's
  CHECK(machine.violation() == "");
}

TEST_CASE("everything that a detector took from the device is given back") {
  FakeMachine machine;
  {
    Detector detector(small_model(), options());
    DetectRequest request;
    request.want_tensors = request.want_times = request.want_proposals = true;
    const DetectResult result = detector.detect(Picture(32, 24, 1).view, request);
    CHECK(result.tensors.size() > 10);
    CHECK(result.times.size() > 10);
    CHECK(result.proposals.size() == static_cast<std::size_t>(result.proposal_count));
    CHECK(machine.bytes_in_use() > 0);
  }
  CHECK(machine.bytes_in_use() == 0);
  CHECK(machine.allocations_alive() == 0);
  CHECK(machine.violation() == "");
}

TEST_CASE("a device without room refuses, and what was there before goes on") {
  const Picture picture(32, 24, 1);
  DetectorOptions large = options();
  large.max_image_pixels = 16 << 20;
  FakeMachine::Properties properties;
  properties.memory_bytes = 8 << 20;
  FakeMachine machine(properties);
  const auto model = small_model();
  Detector detector(model, options());
  const DetectResult expected = detector.detect(picture.view);
  const std::size_t before = machine.bytes_in_use();
  const std::string message = message_of([&] { Detector(model, large); }, ErrorCode::out_of_memory);
  CHECK(contains(message, "cuda:0: no room for "));
  // The second arena, as large as the first, was there already when the room for originals was asked for.
  const std::size_t left = properties.memory_bytes - before - detector.session().arena_bytes();
  CHECK(contains(message, std::to_string(left) + " of 8388608 are free"));
  CHECK(machine.bytes_in_use() == before);

  // Page-locked memory for originals; an arena of its own for every value.
  machine.fail(1, cudaErrorMemoryAllocation, false, "cudaHostAlloc");
  message_of([&] { Detector(model, options()); }, ErrorCode::out_of_memory);
  CHECK(machine.failed());
  CHECK(machine.bytes_in_use() == before);
  DetectRequest everything;
  everything.want_tensors = true;
  machine.fail(1, cudaErrorMemoryAllocation, false, "cudaMalloc");
  message_of([&] { detector.detect(picture.view, everything); }, ErrorCode::out_of_memory);
  CHECK(machine.failed());
  machine.fail_nothing();
  CHECK(machine.bytes_in_use() == before);
  CHECK(same_bits(expected, detector.detect(picture.view)));
  CHECK_FALSE(detector.detect(picture.view, everything).tensors.empty());
  CHECK(machine.violation() == "");
}

TEST_CASE("there is no room for the largest pictures, which bring their own") {
  FakeMachine machine;
  const auto model = small_model();
  DetectorOptions all = options();
  all.max_image_pixels = DetectorOptions{}.max_image_pixels;
  Detector detector(model, all);
  const std::size_t before = machine.bytes_in_use(), room = 3 * (std::size_t{16} << 20);
  CHECK(before > room);
  CHECK(before < room + (8 << 20));
  CHECK(detector.session().arena_bytes() < before);
  const auto mallocs = [&](const Picture& picture) {
    machine.reset_counts();
    CHECK_NOTHROW(detector.detect(picture.view));
    CHECK(machine.bytes_in_use() == before);
    return machine.count("cudaMalloc");
  };
  CHECK(mallocs(Picture(4096, 4096, 1)) == 0);
  const Picture larger(4097, 4096, 2);
  CHECK(mallocs(larger) == 1);
  CHECK(mallocs(larger) == 1);
  machine.fail(1, cudaErrorMemoryAllocation, false, "cudaMalloc");
  message_of([&] { detector.detect(larger.view); }, ErrorCode::out_of_memory);
  CHECK(machine.violation() == "");
}

TEST_CASE("weights that no session uses make room for others") {
  const Picture picture(32, 24, 1);
  const auto model = [] { return small_model(); };
  // What the model keeps of an earlier session leaves too little for the next, by one byte.
  std::size_t most = 0, kept = 0;
  {
    FakeMachine machine;
    const auto both = model();
    { const Detector first(both, options()); }
    kept = machine.bytes_in_use();
    CHECK(kept > 0);
    Detector second(both, options("cuda:0", Precision::fp16));
    second.detect(picture.view);
    most = machine.bytes_in_use();
  }
  FakeMachine::Properties properties;
  properties.memory_bytes = most - 1;
  FakeMachine machine(properties);
  const auto both = model();
  {
    Detector first(both, options());
    const DetectResult expected = first.detect(picture.view);
    message_of([&] { Detector(both, options()); }, ErrorCode::out_of_memory);   // these are in use
    CHECK(same_bits(expected, first.detect(picture.view)));
  }
  CHECK(machine.bytes_in_use() >= kept);
  Detector second(both, options("cuda:0", Precision::fp16));
  CHECK_NOTHROW(second.detect(picture.view));
  CHECK(machine.bytes_in_use() < most);
  CHECK(machine.violation() == "");
}

// Of the other device's session this says what the engine makes of it, with a runtime that goes on.
TEST_CASE("after a sticky error a session says that it is dead, another device's goes on") {
  const Picture picture(32, 24, 1);
  FakeMachine machine(machine_with(2));
  const auto model = small_model();
  Detector one(model, options("cuda:0")), two(model, options("cuda:1"));
  const DetectResult expected = one.detect(picture.view);
  CHECK(same_bits(expected, two.detect(picture.view)));
  for (const char* call : {"cudaStreamSynchronize", "cudaGraphLaunch"}) {
    INFO(call);
    const bool last = std::string(call) == "cudaGraphLaunch";
    Detector& dying = last ? two : one;
    machine.fail(1, cudaErrorIllegalAddress, true, call);
    const std::string message = message_of([&] { dying.detect(picture.view); }, ErrorCode::device);
    CHECK(contains(message, "an illegal memory access"));
    for (int i = 0; i < 2; ++i)
      CHECK(contains(message_of([&] { dying.detect(picture.view); }, ErrorCode::device),
                     "dead since an earlier error"));
    CHECK_THROWS_AS(Detector(model, options(dying.device().name())), Error);
    if (!last) CHECK(same_bits(expected, two.detect(picture.view)));
  }
  CHECK(make_device("cpu")->name() == "cpu");
}

TEST_CASE("two threads in one detector: one gets an error, the other its boxes") {
  FakeMachine machine;
  Detector detector(small_model(), options());
  const Picture picture(32, 24, 1);
  const DetectResult expected = detector.detect(picture.view);
  std::mutex mutex;
  std::condition_variable changed;
  bool inside = false, go_on = false;
  machine.on_launch([&] {
    std::unique_lock lock(mutex);
    inside = true;
    changed.notify_all();
    changed.wait(lock, [&] { return go_on; });
  });
  DetectResult slow;
  std::thread other([&] { slow = detector.detect(picture.view); });
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return inside; });
  }
  const std::string message = message_of([&] { detector.detect(picture.view); }, ErrorCode::invalid_argument);
  {
    const std::lock_guard lock(mutex);
    go_on = true;
    changed.notify_all();
  }
  other.join();
  machine.on_launch({});
  CHECK(contains(message, "in use by another thread"));
  CHECK(same_bits(expected, slow));
  CHECK(same_bits(expected, detector.detect(picture.view)));
}

TEST_CASE("detectors of one model work in several threads at once") {
  FakeMachine machine(machine_with(2));
  const auto model = small_model();
  const Picture picture(32, 24, 1);
  const DetectResult expected = Detector(model, options()).detect(picture.view);
  int right[3] = {};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      Detector detector(model, options(t == 0 ? "cuda:0" : "cuda:1"));
      for (int i = 0; i < 3; ++i) right[t] += same_bits(expected, detector.detect(picture.view));
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const int n : right) CHECK(n == 3);
  CHECK(machine.violation() == "");
}

// The same of graphs: test_cuda_graphs.cpp.
TEST_CASE("an error at any call of a detection is reported, leaks nothing and is over with the next one") {
  const Picture picture(32, 24, 1);
  FakeMachine machine;
  const auto model = small_model();
  DetectorOptions eager = options();
  eager.gpu.graphs = false;
  Detector detector(model, eager);
  const DetectResult expected = detector.detect(picture.view);
  machine.reset_counts();
  detector.detect(picture.view);
  const int calls = machine.count_all();
  const std::size_t alive = machine.allocations_alive();
  REQUIRE(calls > 15);
  for (int n = 1; n <= 2 * calls; ++n) {
    const bool full = n > calls;
    INFO("call " << n << " of 2 times " << calls);
    machine.fail(full ? n - calls : n, full ? cudaErrorMemoryAllocation : cudaErrorInvalidValue);
    const std::string message = message_of([&] { detector.detect(picture.view); },
                                           full ? ErrorCode::out_of_memory : ErrorCode::device);
    CHECK(machine.failed());
    CHECK(contains(message, full ? "out of memory" : "invalid argument"));
    CHECK(machine.allocations_alive() == alive);
    if (n % 8 == 1 || n == 2 * calls) CHECK(same_bits(expected, detector.detect(picture.view)));
  }
  CHECK(machine.violation() == "");
}

TEST_CASE("a sticky error at any call of a detection ends the detector, and leaks nothing") {
  const Picture picture(32, 24, 1);
  for (const bool graphs : {false, true}) {
    DetectorOptions how = options();
    how.gpu.graphs = graphs;
    int calls = 0;
    for (int n = 0; n == 0 || n <= calls; ++n) {
      FakeMachine machine;
      {
        Detector detector(small_model(), how);
        for (int i = 0; i < 2; ++i) detector.detect(picture.view);
        machine.reset_counts();
        if (n == 0) {
          detector.detect(picture.view);
          calls = machine.count_all();
          continue;
        }
        INFO("call " << n << " of " << calls << (graphs ? ", graphs" : ", kernel by kernel"));
        machine.fail(n, cudaErrorLaunchFailure, true);
        message_of([&] { detector.detect(picture.view); }, ErrorCode::device);
        CHECK(machine.failed());
        CHECK(contains(message_of([&] { detector.detect(picture.view); }, ErrorCode::device), "dead"));
      }
      CHECK(machine.allocations_alive() == 0);
      CHECK(machine.violation() == "");
    }
    CHECK(calls > (graphs ? 3 : 15));
  }
}

TEST_CASE("an error at any call of making a detector and its first detection leaves nothing behind") {
  const Picture picture(32, 24, 1);
  int calls = 0;  // until the result is there; those after it give memory back
  const auto attempt = [&](FakeMachine& machine) {
    const auto model = small_model();
    Detector detector(model, options());
    detector.detect(picture.view);
    calls = machine.count_all();
  };
  int all = 0;
  {
    FakeMachine machine;
    attempt(machine);
    all = machine.count_all();
  }
  REQUIRE(calls > 100);
  REQUIRE(all > calls);
  const int until_result = calls;
  const int graph_given_back = until_result - 2;  // after its upload; then the device is selected and waited for
  for (int i = 0; i < 2 * all; ++i) {
    const int n = i / 2 + 1;
    const bool full = i % 2 != 0, sticky = !full && n % 5 == 0;
    INFO("call " << n << " of " << all << (sticky ? ", sticky" : full ? ", out of memory" : ""));
    FakeMachine machine;
    machine.fail(n, full ? cudaErrorMemoryAllocation : cudaErrorLaunchFailure, sticky);
    if (n == graph_given_back && !sticky) {  // the result does not need it any more
      CHECK_NOTHROW(attempt(machine));
      CHECK(machine.failed_call() == "cudaGraphDestroy");
    } else if (n <= until_result) {
      // The first one asks whether there is a device at all.
      message_of([&] { attempt(machine); }, full     ? ErrorCode::out_of_memory
                                            : n == 1 ? ErrorCode::unsupported
                                                     : ErrorCode::device);
    } else {
      CHECK_NOTHROW(attempt(machine));
    }
    CHECK(machine.failed());
    CHECK(machine.allocations_alive() == 0);
    CHECK(machine.violation() == "");
  }
}
