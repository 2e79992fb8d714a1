// Detections as CUDA graphs, on the fake runtime: the same bits as kernel by kernel, one copy of pixels, one
// launch and one wait each, and what goes wrong in the middle of a capture.
#include <condition_variable>
#include <iostream>
#include <mutex>
#include <thread>

#include "tests/simt/detector_cases.h"

using namespace frcnn;
using namespace frcnn::simt_test;
using simt::FakeMachine;

namespace {

DetectorOptions without_graphs(DetectorOptions options) {
  options.gpu.graphs = false;
  return options;
}

// Which error it was does not matter here; "" if there was none.
std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// A detector with an error injected at every call of `request`, one after the other; `prepare` makes each
// attempt begin alike. The error is reported, nothing leaks, and the next detection is right.
void fail_every_call(FakeMachine& machine, Detector& detector, const Picture& picture,
                     const DetectResult& expected, const std::function<void()>& prepare, int least_calls) {
  prepare();
  machine.reset_counts();
  CHECK(same_bits(expected, detector.detect(picture.view)));
  const int calls = machine.count_all();
  REQUIRE(calls >= least_calls);
  detector.detect(picture.view);
  const std::size_t alive = machine.allocations_alive();
  int harmless = 0;
  for (int n = 1; n <= 2 * calls; ++n) {
    const bool full = n > calls;
    prepare();
    machine.fail(full ? n - calls : n, full ? cudaErrorMemoryAllocation : cudaErrorInvalidValue);
    const std::string message = error_of([&] { detector.detect(picture.view); });
    INFO("call " << n << " of 2 times " << calls << ", " << machine.failed_call() << ": " << message);
    CHECK(machine.failed());
    if (machine.failed_call() == "cudaGraphDestroy") {  // what was captured has been instantiated by then
      CHECK(message == "");
      ++harmless;
    } else {
      CHECK(contains(message, full ? "out of memory" : "invalid argument"));
    }
    machine.fail_nothing();
    CHECK(same_bits(expected, detector.detect(picture.view)));
    CHECK(same_bits(expected, detector.detect(picture.view)));
    CHECK(machine.allocations_alive() == alive);
    CHECK(machine.graphs_alive() == 1);
  }
  CHECK(harmless <= 2);
  CHECK(machine.violation() == "");
}

// Two threads of a test that take turns at given places.
class Gate {
 public:
  void open() { set(open_); }
  void arrive() { set(arrived_); }
  void wait_for_arrival() { wait(arrived_); }
  void wait_to_open() { wait(open_); }

 private:
  void set(bool& flag) {
    const std::lock_guard lock(mutex_);
    flag = true;
    changed_.notify_all();
  }
  void wait(const bool& flag) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return flag; });
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false, arrived_ = false;
};

}  // namespace

TEST_CASE("a replayed detection has the bits of one kernel by kernel", "[graphs]") {
  const simt::FakeMachine machine;
  const tool::TempDir dir;
  std::vector<DetectorCase> cases = golden_cases(simt::kRaceCheck ? 32 : 64, dir);
  cases.push_back(random_case());
  std::size_t found = 0;
  for (const DetectorCase& test_case : cases) {
    DetectorOptions options = simt_test::options();
    options.max_image_pixels = 1 << 18;
    Detector graphs(test_case.model, options), plain(test_case.model, without_graphs(options));
    DetectRequest request;
    request.want_proposals = true;
    const ImageView whole = test_case.view();
    int sizes = 0;
    for (const auto& [width, height] :
         {std::pair{whole.width, whole.height}, std::pair{whole.width * 3 / 4, whole.height},
          std::pair{whole.width, whole.height * 2 / 3 - 1}}) {
      ImageView view = whole;
      view.width = width;
      view.height = height;
      view.row_bytes = std::ptrdiff_t{3} * whole.width;
      INFO(test_case.name << " " << width << "x" << height);
      const DetectResult want = plain.detect(view, request);
      for (int run = 0; run < 2; ++run)  // captured, then replayed
        CHECK(same_bits_throughout(graphs.detect(view, request), want));
      found += want.proposals.size() + want.detections.size();
      ++sizes;
    }
    const SessionStats stats = graphs.session().stats();
    CHECK(stats.runs.recordings == sizes);
    CHECK(stats.runs.replays == sizes);
    CHECK(plain.session().stats().runs.recordings == 0);
  }
  std::cout << cases.size() << " detectors, 3 sizes each: " << found
            << " proposals and detections, bit for bit\n";
  CHECK(found > 10);
  CHECK(machine.violation() == "");
}

TEST_CASE("a detection of a known size is a copy, a launch of a graph, one synchronisation and no allocation",
          "[graphs]") {
  FakeMachine machine;
  const auto model = small_model();
  Detector detector(model, options()), plain(model, without_graphs(options()));
  const Picture picture(32, 24, 1);
  const DetectResult first = detector.detect(picture.view);
  CHECK_FALSE(first.detections.empty());
  CHECK(same_bits(first, plain.detect(picture.view)));
  machine.reset_counts();
  plain.detect(picture.view);
  const int kernels = machine.count("launch");
  CHECK(kernels > 10);
  const std::int64_t waits = detector.session().stats().synchronizations;
  for (int i = 0; i < 3; ++i) {
    machine.reset_counts();
    CHECK(same_bits(first, detector.detect(picture.view)));
    CHECK(machine.count("cudaGraphLaunch") == 1);
    CHECK(machine.count("cudaStreamSynchronize") == 1);
    CHECK(machine.count("cudaMemcpyAsync") == 1);  // the pixels; all else is copied by the graph
    CHECK(machine.count_all() == 3 + machine.count("cudaSetDevice"));
    CHECK(machine.count("cudaSetDevice") <= 3);
    CHECK(machine.replayed_kernels() == kernels);
  }
  const SessionStats stats = detector.session().stats();
  CHECK(stats.synchronizations == waits + 3);
  CHECK(stats.allocations_since_plan == 0);
  CHECK(stats.plans == 1);
  CHECK(stats.graphs == 1);
  CHECK(stats.runs.eager == 1);
  CHECK(stats.runs.replays == 3);
  CHECK(machine.violation() == "");
}

TEST_CASE("a replay sees what is in the inputs then, not what was there at the capture", "[graphs]") {
  FakeMachine machine;
  const auto model = small_model();
  Detector detector(model, options()), plain(model, without_graphs(options()));
  std::vector<DetectResult> seen;
  for (unsigned seed = 1; seed <= 4; ++seed) {
    const Picture picture(40, 30, seed);
    seen.push_back(detector.detect(picture.view));
    CHECK(same_bits(seen.back(), plain.detect(picture.view)));
  }
  CHECK_FALSE(same_bits(seen[1], seen[2]));
  CHECK(detector.session().stats().runs.replays == 3);
  // Between replays, what is launched kernel by kernel: with times, and with every value kept.
  const Picture picture(40, 30, 2);
  DetectRequest timed, everything;
  timed.want_times = true;
  everything.want_tensors = true;
  CHECK(same_bits(detector.detect(picture.view, timed), seen[1]));
  CHECK(same_bits(detector.detect(picture.view), seen[1]));
  CHECK(same_bits(detector.detect(picture.view, everything), seen[1]));
  CHECK(same_bits(detector.detect(Picture(40, 30, 3).view), seen[2]));
  CHECK(detector.session().stats().runs.replays == 5);
  CHECK(detector.session().stats().runs.recordings == 1);
  CHECK(machine.graphs_alive() == 1);
  CHECK(machine.violation() == "");
}

TEST_CASE("graphs leave with the least recently used size and are captured anew when it returns",
          "[graphs]") {
  FakeMachine machine;
  const auto model = small_model();
  DetectorOptions two = options();
  two.cached_plans = 2;
  Detector detector(model, two), plain(model, without_graphs(two));
  const Picture pictures[] = {{24, 32, 1}, {32, 24, 2}, {48, 40, 3}};
  const auto detect = [&](int which) {
    const Picture& picture = pictures[which];
    CHECK(same_bits(detector.detect(picture.view), plain.detect(picture.view)));
    const Executable& latest = *detector.session().latest();
    return std::pair(latest.view("images").data, latest.view("detections").data);
  };
  const auto first = detect(0);
  const std::size_t memory = machine.bytes_in_use();
  for (const int which : {1, 0, 2, 0, 2, 2}) detect(which);  // 1 leaves for 2
  SessionStats stats = detector.session().stats();
  CHECK(stats.plans == 2);
  CHECK(stats.graphs == 2);
  CHECK(stats.evictions == 1);
  CHECK(stats.runs.recordings == 3);
  CHECK(stats.runs.replays == 4);
  CHECK(machine.graphs_alive() == 2);
  detect(1);
  detect(1);
  stats = detector.session().stats();
  CHECK(stats.evictions == 2);
  CHECK(stats.runs.recordings == 4);
  CHECK(machine.graphs_alive() == 2);
  CHECK(detect(0) == first);  // recorded anew, at the same addresses: neither arena nor plan has moved
  CHECK(machine.bytes_in_use() == memory);
  CHECK(machine.violation() == "");
}

TEST_CASE("memory that inputs pass through stays where a graph has it", "[graphs]") {
  FakeMachine machine;
  DetectorOptions batches = options();
  batches.max_batch = 8;
  Detector detector(small_model(), batches);
  const Picture picture(24, 16, 1);
  const auto input_of = [&](std::size_t images) {
    detector.detect(std::vector<ImageView>(images, picture.view));
    const Executable& latest = *detector.session().latest();
    return const_cast<Executable&>(latest).input("images");
  };
  const void* const before = input_of(1);
  const std::size_t bytes = detector.session().stats().staging_bytes;
  machine.reset_counts();
  const void* const beside = input_of(4);
  CHECK(machine.count("cudaHostAlloc") == 1);
  CHECK(beside != before);
  CHECK(input_of(1) == before);
  CHECK(detector.session().stats().staging_bytes > bytes);
  // What does not fit takes at least twice as much as there was, so that the next ones find room.
  machine.reset_counts();
  for (const std::size_t images : {5u, 6u, 7u, 8u}) input_of(images);
  CHECK(machine.count("cudaHostAlloc") <= 1);
  CHECK(input_of(4) == beside);
  CHECK(machine.violation() == "");
}

TEST_CASE("an error at any call of a replay is reported, and the next detection captures anew", "[graphs]") {
  FakeMachine machine;
  Detector detector(small_model(), options());
  const Picture picture(32, 24, 1);
  const DetectResult expected = detector.detect(picture.view);
  fail_every_call(
      machine, detector, picture, expected, [] {}, 3);
}

TEST_CASE("an error at any call of a capture is reported, and the next detection captures anew", "[graphs]") {
  FakeMachine machine;
  Detector detector(small_model(), options());
  const Picture picture(32, 24, 1);
  const DetectResult expected = detector.detect(picture.view);
  const auto forget = [&] {  // an error is what makes an executable drop what it recorded
    machine.fail(1, cudaErrorInvalidValue, false, "cudaGraphLaunch");
    CHECK_THROWS_AS(detector.detect(picture.view), Error);
    machine.fail_nothing();
  };
  fail_every_call(machine, detector, picture, expected, forget, 40);
}

TEST_CASE("an error that ends the context in the middle of a capture says so", "[graphs]") {
  const Picture picture(32, 24, 1);
  const int kernels = [&] {
    const FakeMachine machine;
    Detector detector(small_model(), without_graphs(options()));
    detector.detect(picture.view);
    return machine.count("launch");
  }();
  CHECK(kernels > 10);
  for (const char* call : {"cudaStreamBeginCapture", "launch", "cudaMemcpyAsync", "cudaStreamEndCapture",
                           "cudaGraphInstantiate", "cudaGraphUpload", "cudaGraphLaunch"}) {
    INFO(call);
    FakeMachine machine;
    {
      const auto model = small_model();
      Detector detector(model, options());
      const std::string name = call;
      if (name == "cudaGraphLaunch") detector.detect(picture.view);
      // The second half of the launches and copies of a first detection belongs to its capture.
      const int nth = name == "launch" ? kernels + kernels / 2 : name == "cudaMemcpyAsync" ? 4 : 1;
      machine.fail(nth, cudaErrorLaunchFailure, true, call);
      CHECK(contains(error_of([&] { detector.detect(picture.view); }), "unspecified launch failure"));
      CHECK(machine.failed());
      CHECK(contains(error_of([&] { detector.detect(picture.view); }), "dead since an earlier error"));
      CHECK(detector.session().stats().graphs == 0);
    }
    CHECK(machine.allocations_alive() == 0);
    CHECK(machine.violation() == "");
  }
}

TEST_CASE("what may not be done during a capture ends it, and the device goes on", "[graphs]") {
  FakeMachine machine;
  const auto model = small_model();
  const auto device = make_device("cuda:0");
  {
    const auto memory = device->allocate(256), host = device->allocate_host(256);
    std::vector<float> ordinary(64, 1.0f);
    const auto why = [&](const std::function<void()>& work) {
      const std::string message = error_of([&] { device->record(work); });
      CHECK(machine.graphs_alive() == 0);
      CHECK_NOTHROW(device->synchronize());
      return message;
    };
    const char* const refused = "not permitted when stream is capturing";
    CHECK(contains(why([&] { device->allocate(16); }), refused));
    CHECK(contains(why([&] { device->allocate_host(16); }), refused));
    CHECK(contains(why([&] { device->synchronize(); }), refused));
    CHECK(contains(why([&] { device->upload(memory.get(), host.get(), 256); }), refused));
    CHECK(contains(why([&] { device->queue_upload(memory.get(), ordinary.data(), 256); }), refused));
    CHECK(contains(why([&] { make_device("cuda:0"); }), refused));
    // Of an error that is not CUDA's, the first one is what is heard of.
    CHECK(why([&] { throw Error(ErrorCode::numeric, "mine"); }) == "mine");
    // Swallowed by who made it, it still leaves no graph.
    const std::string after = why([&] { error_of([&] { device->allocate(16); }); });
    CHECK(contains(after, "ending a capture"));
    CHECK(contains(after, "previous error during capture"));
    CHECK(machine.violation() != "");  // the fake runtime has its own word for each

    auto* const floats = static_cast<float*>(host.get());
    floats[0] = 3;
    const auto recording = device->record([&] {
      device->queue_upload(memory.get(), host.get(), 128);
      device->queue_download(floats + 32, memory.get(), 128);
    });
    floats[0] = 4;
    device->replay(*recording);
    device->synchronize();
    CHECK(floats[32] == 4.0f);
  }
  CHECK(machine.allocations_alive() == 1);  // the device's stream
}

TEST_CASE("a device that was told so, or is none of CUDA's, does not record", "[graphs]") {
  FakeMachine machine;
  const auto cpu = make_device("cpu", Precision::fp32, 1);
  CHECK_FALSE(cpu->records());
  CHECK(contains(error_of([&] { cpu->record([] {}); }), "cpu: does not record"));
  CHECK_FALSE(make_device("cuda:0", Precision::fp32, 0, nullptr, {.graphs = false})->records());
  Detector detector(small_model(), without_graphs(options()));
  const Picture picture(32, 24, 1);
  for (int i = 0; i < 3; ++i) detector.detect(picture.view);
  CHECK(machine.count("cudaStreamBeginCapture") == 0);
  CHECK(detector.session().stats().runs.eager == 3);
  CHECK(detector.session().stats().graphs == 0);
}

TEST_CASE("the stream of a device has the priority that was asked for", "[graphs]") {
  FakeMachine machine;
  DetectorOptions urgent = options();
  urgent.gpu.priority = StreamPriority::high;
  const auto model = small_model();
  Detector batch(model, options());
  {
    Detector latency(model, urgent);
    CHECK(machine.stream_priorities() == std::multiset<int>{-5, 0});
    const Picture picture(32, 24, 1);
    const DetectResult expected = batch.detect(picture.view);
    for (int i = 0; i < 2; ++i) CHECK(same_bits(latency.detect(picture.view), expected));
  }
  CHECK(machine.stream_priorities() == std::multiset<int>{0});
  for (const char* call : {"cudaDeviceGetStreamPriorityRange", "cudaStreamCreateWithPriority"}) {
    machine.fail(1, cudaErrorInvalidValue, false, call);
    CHECK(contains(error_of([&] { Detector(model, urgent); }), "creating a stream: invalid argument"));
    CHECK(machine.failed());
  }
  CHECK(machine.stream_priorities() == std::multiset<int>{0});
}

TEST_CASE("sessions capture in two threads at once, while others allocate, wait and run", "[graphs]") {
  FakeMachine machine;
  const auto model = small_model();
  const Picture picture(32, 24, 1), other_picture(40, 30, 2);
  Detector plain(model, without_graphs(options()));
  const DetectResult expected = plain.detect(picture.view), other_expected = plain.detect(other_picture.view);

  Gate gate;
  std::once_flag once;
  machine.on_launch([&] {  // the first thread that captures stays in the middle of it
    if (!FrcnnSimtStream::capturing) return;
    std::call_once(once, [&] {
      gate.arrive();
      gate.wait_to_open();
    });
  });
  int right[2] = {};
  std::thread first([&] {
    Detector detector(model, options());
    for (int i = 0; i < 3; ++i) right[0] += same_bits(expected, detector.detect(picture.view));
  });
  gate.wait_for_arrival();
  // Meanwhile: another begins its own capture, one is made, runs and is destroyed without.
  std::thread second([&] {
    Detector detector(model, options());
    for (int i = 0; i < 3; ++i) right[1] += same_bits(other_expected, detector.detect(other_picture.view));
  });
  CHECK(same_bits(expected, plain.detect(picture.view)));
  {
    Detector passing(model, without_graphs(options()));
    CHECK(same_bits(expected, passing.detect(picture.view)));
  }
  gate.open();
  first.join();
  second.join();
  machine.on_launch({});
  CHECK(right[0] == 3);
  CHECK(right[1] == 3);
  CHECK(machine.violation() == "");
}

TEST_CASE("many sessions of one model, each in its thread, each with its graphs", "[graphs]") {
  FakeMachine machine;
  const auto model = small_model();
  const Picture pictures[] = {{32, 24, 1}, {40, 34, 2}, {24, 32, 3}};
  std::vector<DetectResult> expected;
  {
    Detector plain(model, without_graphs(options()));
    for (const Picture& picture : pictures) expected.push_back(plain.detect(picture.view));
  }
  constexpr int sessions = 4, rounds = 6;
  int right[sessions] = {};
  SessionStats stats[sessions];
  std::vector<std::thread> threads;
  for (int t = 0; t < sessions; ++t) {
    threads.emplace_back([&, t] {
      DetectorOptions small_cache = options();
      small_cache.cached_plans = t % 2 == 0 ? 2 : 3;  // every other one throws out what it needs next
      Detector detector(model, small_cache);
      for (int i = 0; i < rounds; ++i) {
        const auto which = static_cast<std::size_t>((i + t) % 3);
        right[t] += same_bits(expected[which], detector.detect(pictures[which].view));
      }
      stats[t] = detector.session().stats();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int t = 0; t < sessions; ++t) {
    CHECK(right[t] == rounds);
    CHECK(stats[t].runs.eager + stats[t].runs.replays == rounds);
    CHECK(stats[t].runs.recordings == (t % 2 == 0 ? rounds : 3));
    CHECK(stats[t].evictions == (t % 2 == 0 ? rounds - 2 : 0));
    CHECK(stats[t].arena_bytes > 0);
    CHECK(stats[t].staging_bytes > 0);
    CHECK(stats[t].packed_weight_bytes == model->weights.packed_bytes());
  }
  CHECK(machine.graphs_alive() == 0);
  CHECK(machine.violation() == "");
}

TEST_CASE("repeating every node gives each a time and changes no result", "[graphs]") {
  FakeMachine machine;
  const auto model = small_model();
  const Picture picture(32, 24, 5);
  for (const DetectorOptions& chosen : {options(), without_graphs(options())}) {
    Detector detector(model, chosen);
    const DetectResult expected = detector.detect(picture.view);
    Executable& program = *detector.session().latest();
    const std::size_t alive = machine.allocations_alive();
    std::vector<NodeTime> times(3);
    machine.reset_counts();
    program.run_repeated(2, times);
    REQUIRE(times.size() == program.graph().nodes().size());
    for (std::size_t n = 0; n < times.size(); ++n) {
      INFO(n);
      CHECK(times[n].layer == program.graph().nodes()[n].layer);
      CHECK(times[n].ms >= 0);
    }
    // Each node once as it is, then in recordings of one and of three, which are replayed twice.
    CHECK(machine.count("cudaGraphLaunch") == (chosen.gpu.graphs ? 4 * static_cast<int>(times.size()) : 0));
    CHECK(machine.allocations_alive() == alive);
    CHECK(same_bits(expected, detector.detect(picture.view)));
    // An error in the midst of it is reported, and the device goes on.
    machine.fail(9, cudaErrorInvalidValue, false, "cudaStreamSynchronize");
    CHECK_FALSE(error_of([&] { program.run_repeated(2, times); }).empty());
    machine.fail_nothing();
    CHECK(same_bits(expected, detector.detect(picture.view)));
  }
  CHECK(machine.violation() == "");
}
