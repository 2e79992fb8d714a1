// Batches on the CUDA device, on the emulator and the fake runtime: what they find, where pixels may lie, and
// what is copied and allocated.
#include "batch_checks.h"
#include "tests/simt/detector_fixture.h"

using namespace frcnn;
using namespace frcnn::simt_test;
using namespace frcnn::test;
using simt::FakeMachine;

namespace {

DetectorOptions batches_of(int max_batch, const std::string& device = "cuda:0",
                           Precision precision = Precision::fp32) {
  DetectorOptions result = options(device, precision);
  result.max_batch = max_batch;
  return result;
}

DetectRequest with_proposals() {
  DetectRequest request;
  request.want_proposals = true;
  return request;
}

// A picture copied to the device as it is, rows, gaps and all.
struct OnDevice {
  std::shared_ptr<void> memory;
  ImageView view;
  OnDevice(Device& device, const AnyPicture& picture) : memory(device.allocate(picture.bytes.size())) {
    device.upload(memory.get(), picture.bytes.data(), picture.bytes.size());
    const auto moved = [&](const std::uint8_t* at) {
      return static_cast<const std::uint8_t*>(memory.get()) + (at - picture.bytes.data());
    };
    view = picture.view;
    view.memory = PixelMemory::device;
    view.data = moved(picture.view.data);
    if (picture.view.chroma) view.chroma = moved(picture.view.chroma);
  }
};

}  // namespace

TEST_CASE(
    "four images of four sizes in one batch of the CUDA device are behind the heads what each is alone") {
  const FakeMachine machine;
  const std::vector<AnyPicture> pictures = mixed_pictures();
  const std::vector<ImageView> views = views_of(pictures);
  ModelConfig align = tiny::config();
  align.roi_op = RoiOp::align;
  for (const ModelConfig& config : {tiny::config(), align}) {
    const auto model = tiny_model(config);
    Detector detector(model, batches_of(4));
    CHECK(check_behind_the_heads(*model, detector, views) > 5000);
    CHECK(machine.violation() == "");
  }
}

TEST_CASE("a batch on the CUDA device finds what the CPU finds in it") {
  const FakeMachine machine;
  const std::vector<AnyPicture> pictures = mixed_pictures();
  const std::vector<ImageView> views = views_of(pictures);
  const auto model = tiny_model();
  Detector cuda(model, batches_of(4)), cpu(model, batches_of(4, "cpu"));
  const auto got = cuda.detect(views, with_proposals()), want = cpu.detect(views, with_proposals());
  REQUIRE(got.size() == want.size());
  for (std::size_t n = 0; n < want.size(); ++n) {
    INFO("image " << n);
    CHECK(got[n].proposal_count == want[n].proposal_count);
    CHECK(got[n].detections.empty() == (n == 2));
    compare_detections(got[n], want[n]);
  }
  CHECK(machine.violation() == "");
}

TEST_CASE("an image gives the same at every place of a batch on the CUDA device") {
  const FakeMachine machine;
  const AnyPicture wide(32, 24, 1), upright(24, 31, 2, PixelFormat::nv12, 3, true),
      other(30, 25, 3, PixelFormat::rgb);
  Detector detector(small_model(), batches_of(4));
  const std::vector<ImageView> one{wide.view, upright.view, other.view, wide.view},
      turned{upright.view, wide.view, other.view};
  const auto first = detector.detect(one, with_proposals()),
             second = detector.detect(turned, with_proposals());
  CHECK_FALSE(first[0].detections.empty());
  CHECK(same_result(first[0], first[3]));
  CHECK(same_result(first[0], second[1]));
  CHECK(same_result(first[1], second[0]));
  CHECK(same_result(first[2], second[2]));
  CHECK(machine.violation() == "");
}

TEST_CASE("anchors in a batch's padding never become proposals on the CUDA device") {
  const FakeMachine machine;
  AnyPicture wide(96, 64, 1), small(40, 64, 2);
  for (auto* picture : {&wide, &small})
    std::fill(picture->bytes.begin(), picture->bytes.end(), std::uint8_t{255});
  Detector detector(fond_of_padding(), batches_of(2));
  const std::vector<ImageView> views{wide.view, small.view};
  for (const DetectResult& result : detector.detect(views, with_proposals())) {
    CHECK_FALSE(result.proposals.empty());
    for (const Proposal& proposal : result.proposals) CHECK(proposal.score < 0.49f);
  }
  CHECK(machine.violation() == "");
}

TEST_CASE("a batch is one copy and one graph, and the next of its size allocates nothing") {
  FakeMachine machine;
  Detector detector(small_model(), batches_of(3));
  const AnyPicture a(32, 24, 1), b(24, 30, 2, PixelFormat::rgb, 5), c(16, 12, 3, PixelFormat::nv12);
  const std::vector<ImageView> views{a.view, b.view, c.view}, others{c.view, a.view, b.view};
  detector.detect(views);
  machine.reset_counts();
  detector.detect(others);  // other originals that become as large
  CHECK(machine.count("cudaMemcpyAsync") == 1);
  CHECK(machine.count("cudaGraphLaunch") == 1);
  CHECK(machine.count("cudaStreamSynchronize") == 1);
  CHECK(machine.count("cudaMalloc") + machine.count("cudaHostAlloc") + machine.count("cudaFree") == 0);
  CHECK(detector.session().stats().plans == 1);
  CHECK(machine.violation() == "");
}

TEST_CASE("originals beyond the room bring memory of their own, which is given back") {
  FakeMachine machine;
  DetectorOptions few = batches_of(2);
  few.max_image_pixels = std::int64_t{9} << 20;  // two of them are more than 16 Mi
  Detector detector(small_model(), few);
  const AnyPicture large(3000, 3000, 1), small(32, 24, 2);
  const std::vector<ImageView> one{large.view, small.view}, both{large.view, large.view};
  detector.detect(one);
  detector.detect(both);  // a graph of its own
  const std::size_t before = machine.bytes_in_use(), alive = machine.allocations_alive();
  CHECK(detector.stats().pixel_bytes > std::size_t{48} << 20);
  machine.reset_counts();
  detector.detect(one);
  CHECK(machine.count("cudaMalloc") == 0);
  CHECK(machine.count("cudaHostAlloc") == 0);
  const auto check_given_back = [&] {
    CHECK(machine.bytes_in_use() == before);
    CHECK(machine.allocations_alive() == alive);
  };
  detector.detect(both);
  CHECK(machine.count("cudaMalloc") == 1);
  CHECK(machine.count("cudaHostAlloc") == 1);
  check_given_back();
  for (const char* call : {"cudaMalloc", "cudaHostAlloc"}) {
    machine.fail(1, cudaErrorMemoryAllocation, false, call);
    message_of([&] { detector.detect(both); }, ErrorCode::out_of_memory);
    check_given_back();
  }
  machine.fail(1, cudaErrorLaunchFailure, false, "cudaGraphLaunch");
  message_of([&] { detector.detect(both); }, ErrorCode::device);
  CHECK(machine.bytes_in_use() == before);
  CHECK_NOTHROW(detector.detect(both));  // and the graph that the failing run dropped
  check_given_back();
  CHECK(machine.violation() == "");
}

TEST_CASE("pixels on the device are read where they are, of every format and pitch") {
  FakeMachine machine;
  const auto model = small_model();
  const AnyPicture pictures[] = {
      {32, 24, 1}, {24, 31, 2, PixelFormat::nv12, 3, true}, {30, 25, 3, PixelFormat::rgb, 7}};
  for (const Precision precision : {Precision::fp32, Precision::fp16}) {
    Detector detector(model, batches_of(3, "cuda:0", precision));
    std::vector<OnDevice> there;
    std::vector<ImageView> here, moved, mixed;
    for (const AnyPicture& picture : pictures) {
      there.emplace_back(detector.device(), picture);
      here.push_back(picture.view);
      moved.push_back(there.back().view);
    }
    mixed = {here[0], moved[1], here[2]};
    const auto want = detector.detect(here, with_proposals());
    CHECK_FALSE(want[0].detections.empty());
    machine.reset_counts();
    const auto got = detector.detect(moved, with_proposals());
    CHECK(machine.count("cudaMemcpyAsync") == 0);
    CHECK(machine.count("cudaGraphLaunch") == 1);  // the one that was recorded for pixels of the host
    CHECK(machine.count("cudaMalloc") == 0);
    const auto half = detector.detect(mixed, with_proposals());
    for (std::size_t n = 0; n < want.size(); ++n) {
      CHECK(same_result(want[n], got[n]));
      CHECK(same_result(want[n], half[n]));
    }
    CHECK(same_result(detector.detect(here[1]), detector.detect(moved[1])));
  }
  CHECK(machine.violation() == "");
}

TEST_CASE("pixels that are not where they are said to be are refused before anything happens") {
  FakeMachine::Properties properties;
  properties.devices = 2;
  FakeMachine machine(properties);
  const auto model = small_model();
  Detector detector(model, batches_of(2)), elsewhere(model, batches_of(2, "cuda:1"));
  const AnyPicture picture(32, 24, 1), frame(32, 24, 2, PixelFormat::nv12);
  const OnDevice there(detector.device(), picture), other(elsewhere.device(), picture);
  const auto expected = detector.detect(picture.view);
  machine.reset_counts();
  const auto refused = [&](const ImageView& view) {
    const std::vector<ImageView> views{there.view, view};
    const std::string message = message_of([&] { detector.detect(views); }, ErrorCode::invalid_argument);
    CHECK(message.rfind("image 1: its pixels are said to be on cuda:0", 0) == 0);
    CHECK(machine.count("launch") + machine.count("cudaMemcpyAsync") == 0);
    message_of([&] { detector.detect(view); }, ErrorCode::invalid_argument);
  };
  ImageView host = picture.view;
  host.memory = PixelMemory::device;
  refused(host);
  refused(other.view);
  ImageView beyond = there.view;  // its last rows lie behind the allocation
  beyond.data += 3;
  refused(beyond);
  ImageView halfway = frame.view;  // the luma is there, the chroma is not
  halfway.memory = PixelMemory::device;
  halfway.data = static_cast<const std::uint8_t*>(there.memory.get());
  refused(halfway);
  CHECK(same_result(expected, detector.detect(there.view)));
  CHECK(same_result(expected, elsewhere.detect(other.view)));
  CHECK(machine.violation() == "");
}

TEST_CASE("an error at any call of a batch is reported, leaks nothing and is over with the next one") {
  FakeMachine machine;
  DetectorOptions eager = batches_of(2);
  eager.gpu.graphs = false;
  Detector detector(small_model(), eager);
  const AnyPicture a(32, 24, 1), b(24, 30, 2);
  const OnDevice there(detector.device(), b);
  const std::vector<ImageView> views{a.view, there.view};
  const auto expected = detector.detect(views);
  machine.reset_counts();
  detector.detect(views);
  const int calls = machine.count_all();
  const std::size_t alive = machine.allocations_alive();
  REQUIRE(calls > 15);
  for (int n = 1; n <= calls; ++n) {
    INFO("call " << n << " of " << calls);
    machine.fail(n, cudaErrorInvalidValue);
    CHECK_THROWS_AS(detector.detect(views), Error);
    CHECK(machine.failed());
    CHECK(machine.allocations_alive() == alive);
    if (n % 8 == 1 || n == calls) CHECK(same_result(expected[1], detector.detect(views)[1]));
  }
  CHECK(machine.violation() == "");
}

TEST_CASE("a batch on the CUDA device does not notice guarded memory, and fits the arena reserved for it") {
  const FakeMachine machine;
  const auto model = small_model();
  const AnyPicture a(32, 24, 1), b(24, 31, 2, PixelFormat::nv12, 3), c(1, 1, 3);
  const std::vector<ImageView> views{a.view, b.view, c.view};
  for (const Precision precision : {Precision::fp32, Precision::fp16}) {
    Detector detector(model, batches_of(3, "cuda:0", precision));
    for (std::size_t n = 1; n <= views.size(); ++n) {
      const BatchInputs inputs(*model, std::span(views).first(n));
      const auto run = [&](ProgramMemory memory) {
        Executable executable(build_graph(*model, inputs.request), {}, model->weights, detector.device(),
                              {memory});
        CHECK(executable.plan().arena_bytes <= detector.session().arena_bytes());
        inputs.feed(executable);  // the emulated device reads the host's memory
        executable.run();
        std::vector<float> detections(
            static_cast<std::size_t>(executable.view("detections").shape.elements()));
        executable.get("detections", detections.data(), detections.size() * sizeof(float));
        return detections;
      };
      const std::vector<float> in_arena = run(ProgramMemory::arena);
      CHECK(std::any_of(in_arena.begin(), in_arena.end(), [](float v) { return v != 0; }));
      CHECK(in_arena == run(ProgramMemory::guarded));
    }
  }
  CHECK(machine.violation() == "");
}
