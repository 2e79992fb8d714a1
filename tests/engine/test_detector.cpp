#include <atomic>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>
#include <new>
#include <random>
#include <thread>

#include "batch_inputs.h"
#include "detector/faster_rcnn.h"
#include "pixels.h"
#include "tiny_detector.h"

using namespace frcnn;
using test::message_of;
using test::model_of;
using test::Picture;
using test::tiny_model;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FRCNN_TEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define FRCNN_TEST_SANITIZED 1
#endif
#endif

namespace {

// Allocations of the process while `counting`; the libraries' own included.
std::atomic<long> allocations = 0;
std::atomic<bool> counting = false;

}  // namespace

#ifdef FRCNN_TEST_SANITIZED
// A sanitizer owns operator new and tells of every malloc. Declared here because not every compiler ships the header.
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*)(const volatile void*, std::size_t),
                                                         void (*)(const volatile void*));
namespace {
const int hooked = __sanitizer_install_malloc_and_free_hooks(
    [](const volatile void*, std::size_t) {
      if (counting) ++allocations;
    },
    [](const volatile void*) {});
}  // namespace
#else
// Not inlined: the compiler would pair malloc with delete and warn.
__attribute__((noinline)) void* operator new(std::size_t bytes) {
  if (counting) ++allocations;
  if (void* p = std::malloc(bytes)) return p;
  throw std::bad_alloc();
}
__attribute__((noinline)) void operator delete(void* p) noexcept { std::free(p); }
__attribute__((noinline)) void operator delete(void* p, std::size_t) noexcept { std::free(p); }
#endif

namespace {

bool same(const DetectResult& a, const DetectResult& b) {
  if (a.detections.size() != b.detections.size() || a.proposal_count != b.proposal_count) return false;
  for (std::size_t i = 0; i < a.detections.size(); ++i) {
    const Detection &x = a.detections[i], &y = b.detections[i];
    if (x.class_id != y.class_id || x.score != y.score || x.box != y.box) return false;
  }
  return true;
}

DetectorOptions on_cpu(int threads = 1) {
  DetectorOptions options;
  options.device = "cpu";
  options.threads = threads;
  return options;
}

}  // namespace

TEST_CASE("a detector finds the same in any order of images, pitch and channel order", "[detector]") {
  Detector detector(tiny_model(), on_cpu());
  const Picture a(80, 60, 1), b(50, 90, 2);
  const DetectResult first = detector.detect(a.view), other = detector.detect(b.view);
  CHECK_FALSE(first.detections.empty());
  CHECK(same(first, detector.detect(a.view)));
  CHECK(same(other, detector.detect(b.view)));

  // The same pixels as RGB, upside down in memory.
  std::vector<std::uint8_t> rgb(a.bytes.size());
  for (std::size_t y = 0; y < 60; ++y)
    for (std::size_t x = 0; x < 80; ++x)
      for (std::size_t c = 0; c < 3; ++c) rgb[((59 - y) * 80 + x) * 3 + c] = a.bytes[(y * 80 + x) * 3 + 2 - c];
  const ImageView flipped{rgb.data() + 59 * 240, 80, 60, -240, PixelFormat::rgb};
  CHECK(same(first, detector.detect(flipped)));
}

namespace {

// An NV12 frame of random levels with planes of any pitch, and the same picture as packed BGR.
struct Frame {
  std::vector<std::uint8_t> luma, chroma, bgr;
  ImageView view, as_bgr;
  Frame(int width, int height, int pitch, int chroma_pitch, unsigned seed)
      : luma(static_cast<std::size_t>(pitch * height)), chroma(static_cast<std::size_t>(chroma_pitch * ((height + 1) / 2))) {
    std::mt19937 random(seed);
    for (std::uint8_t& b : luma) b = static_cast<std::uint8_t>(random() >> 24);
    for (std::uint8_t& b : chroma) b = static_cast<std::uint8_t>(random() >> 24);
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) {
        const std::uint8_t* const pair = chroma.data() + y / 2 * chroma_pitch + x / 2 * 2;
        const Bgr pixel = bgr_of_bt601(luma[static_cast<std::size_t>(y * pitch + x)], pair[0], pair[1]);
        for (const int level : pixel.level) bgr.push_back(static_cast<std::uint8_t>(level));
      }
    view = {luma.data(), width, height, pitch, PixelFormat::nv12, chroma.data(), chroma_pitch};
    as_bgr = {bgr.data(), width, height};
  }
};

}  // namespace

TEST_CASE("a video frame gives what its pixels give as BGR", "[detector]") {
  Detector detector(tiny_model(), on_cpu());
  for (const auto& [width, height] : {std::pair{80, 60}, {81, 60}, {80, 61}, {51, 77}, {3, 2}, {1, 1}}) {
    INFO(width << "x" << height);
    const int pairs = (width + 1) / 2 * 2;
    const Frame same_pitch(width, height, pairs + 6, pairs + 6, 1), own_pitch(width, height, width, pairs + 64, 2);
    CHECK(same(detector.detect(same_pitch.view), detector.detect(same_pitch.as_bgr)));
    CHECK(same(detector.detect(own_pitch.view), detector.detect(own_pitch.as_bgr)));
    // One buffer with both planes and nothing said about the second, packed and with a pitch.
    for (const int pitch : {width % 2 ? 0 : width, pairs + 10}) {
      if (pitch == 0) continue;
      const Frame frame(width, height, pitch, pitch, 3);
      std::vector<std::uint8_t> both = frame.luma;
      both.insert(both.end(), frame.chroma.begin(), frame.chroma.end());
      const ImageView view{both.data(), width, height, pitch == width ? 0 : pitch, PixelFormat::nv12};
      CHECK(same(detector.detect(view), detector.detect(frame.as_bgr)));
    }
  }
  // Packed planes of an odd width: the luma's rows are one byte shorter than the chroma's.
  const Frame odd(51, 77, 51, 52, 4);
  std::vector<std::uint8_t> both = odd.luma;
  both.insert(both.end(), odd.chroma.begin(), odd.chroma.end());
  CHECK(same(detector.detect({both.data(), 51, 77, 0, PixelFormat::nv12}), detector.detect(odd.as_bgr)));
}

TEST_CASE("an image of as many pixels as allowed fits in every format", "[detector]") {
  for (const auto& [width, height] : {std::pair{1, 1}, {1, 64}, {64, 1}, {1, 63}, {63, 1}, {9, 7}}) {
    DetectorOptions options = on_cpu();
    options.max_image_pixels = width * height;
    Detector detector(tiny_model(), options);
    const Frame frame(width, height, width + 2, width + 2, 1);
    INFO(width << "x" << height);
    CHECK_NOTHROW(detector.detect(frame.view));
    CHECK_NOTHROW(detector.detect(frame.as_bgr));
  }
}

TEST_CASE("every size that the scale rule makes fits the arena reserved at the start, and it never moves", "[detector]") {
  const auto model = tiny_model();
  Detector detector(model, on_cpu());
  const std::size_t arena = detector.session().arena_bytes();
  std::mt19937 random(3);
  std::size_t plans = 0;
  for (int i = 0; i < 120; ++i) {
    const Picture picture(1 + static_cast<int>(random() % 300), 1 + static_cast<int>(random() % 300), 1);
    const test::BatchInputs inputs(*model, std::span(&picture.view, 1));
    if (std::min(inputs.request.height, inputs.request.width) < 1) continue;
    INFO(picture.view.width << "x" << picture.view.height);
    const Executable one(build_graph(*model, inputs.request), {}, model->weights, detector.device());
    CHECK(one.plan().arena_bytes <= arena);
    ++plans;
  }
  CHECK(plans > 100);
  const Picture a(80, 60, 1), b(60, 80, 1);
  const PlanKey key{0, 1, 64, 85, 0};
  detector.detect(a.view);
  const void* before = detector.session().executable(key, [] { return Graph(); }).view("detections").data;
  detector.detect(b.view);
  detector.detect(a.view);
  CHECK(detector.session().executable(key, [] { return Graph(); }).view("detections").data == before);
}

TEST_CASE("after the first image of a size nothing of ours is allocated while running", "[detector]") {
  const auto model = tiny_model();
  const auto device = make_cpu_device(1);
  const Picture pictures[] = {{80, 60, 4}, {50, 77, 5}};
  const ImageView views[] = {pictures[0].view, pictures[1].view};
  const test::BatchInputs inputs(*model, views);
  Executable executable(build_graph(*model, inputs.request), {}, model->weights, *device);
  inputs.feed(executable);
  executable.run();
  const auto run_counted = [&] {
    inputs.feed(executable);  // their memory has served others since
    allocations = 0;
    counting = true;
    executable.run();
    counting = false;
    return allocations.load();
  };
  // What remains is oneDNN's, a few for each of its primitives, and does not grow.
  long primitives = 0;
  for (const Node& node : executable.graph().nodes())
    primitives += std::holds_alternative<Conv2d>(node.op) || std::holds_alternative<Linear>(node.op);
  const long first = run_counted();
#ifdef FRCNN_TEST_SANITIZED
  REQUIRE(hooked > 0);
  constexpr long each = 64;          // mallocs of its C code counted too
#else
  constexpr long each = 12;
#endif
  CHECK(first <= each * primitives);
  for (int i = 0; i < 20; ++i) CHECK(run_counted() <= first);

  // Without oneDNN's nodes: a graph of ours alone.
  Graph graph;
  const ValueId images = graph.input("images", {Shape{2, sizeof(SourceImage)}, DType::u8});
  ValueId top = graph.add1(Preprocess{{1, 2, 3}, 85, 85}, "data", Stage::preprocess, {images}, "data");
  top = graph.add1(Lrn{}, "lrn", Stage::backbone, {top}, "lrn");
  top = graph.add1(MaxPool{}, "pool", Stage::backbone, {top}, "pool");
  const ValueId rois = graph.input("rois", {Shape{7, 5}});
  graph.keep(graph.add1(RoiPool{}, "roi_pool", Stage::head, {top, rois}, "roi_pool"));
  Executable ours(graph, {}, model->weights, *device);
  ours.set("images", inputs.images.data(), 2 * sizeof(SourceImage));
  ours.run();
  ours.set("images", inputs.images.data(), 2 * sizeof(SourceImage));
  allocations = 0;
  counting = true;
  ours.run();
  counting = false;
  CHECK(allocations == 0);
}

TEST_CASE("an infinity is traced to the first value that holds it, and the detector goes on", "[detector]") {
  // Finite weights, but sums that overflow.
  tiny::Tensors tensors = tiny::tensors(tiny::config());
  for (float& v : tensors["rpn_bbox_pred.weight"].values) v = 3e38f;
  const Picture picture(80, 60, 5);
  Detector rpn(model_of(tiny::config(), tensors), on_cpu());
  const std::string message = message_of([&] { rpn.detect(picture.view); }, ErrorCode::numeric);
  INFO(message);
  CHECK(message.rfind("rpn_bbox_pred: ", 0) == 0);

  tensors = tiny::tensors(tiny::config());
  for (float& v : tensors["cls_score.weight"].values) v = 3e38f;
  Detector head(model_of(tiny::config(), tensors), on_cpu());
  for (int i = 0; i < 2; ++i) {
    const std::string again = message_of([&] { head.detect(picture.view); }, ErrorCode::numeric);
    INFO(again);
    CHECK(again.rfind("cls_score: ", 0) == 0);
  }
}

TEST_CASE("a weight that is not finite is named", "[detector]") {
  tiny::Tensors tensors = tiny::tensors(tiny::config());
  tensors["fc7.weight"].values[3] = std::numeric_limits<float>::quiet_NaN();
  const std::string message = message_of([&] { Detector(model_of(tiny::config(), tensors), on_cpu()); }, ErrorCode::numeric);
  INFO(message);
  CHECK(message.find("fc7.weight: nan at element 3") != std::string::npos);
}

TEST_CASE("no proposal, no detection, no failure", "[detector]") {
  ModelConfig config = tiny::config();
  config.rpn_min_size = 10000;
  Detector detector(model_of(config, tiny::tensors(config)), on_cpu());
  DetectRequest request;
  request.want_tensors = request.want_proposals = true;
  const DetectResult result = detector.detect(Picture(80, 60, 6).view, request);
  CHECK(result.proposal_count == 0);
  CHECK(result.detections.empty());
  CHECK(result.proposals.empty());
  for (const NamedTensor& tensor : result.tensors)
    if (tensor.name == "rois" || tensor.name == "fc6" || tensor.name == "detections") CHECK(tensor.shape[0] == 0);
}

TEST_CASE("given proposals replace the network's", "[detector]") {
  Detector detector(tiny_model(), on_cpu());
  const Picture picture(80, 60, 7);
  DetectRequest request;
  request.want_proposals = true;
  const DetectResult own = detector.detect(picture.view, request);
  DetectRequest given;
  given.proposals = &own.proposals;
  CHECK(detector.detect(picture.view, given).proposal_count == own.proposal_count);
  const std::vector<Proposal> none;
  given.proposals = &none;
  CHECK(detector.detect(picture.view, given).detections.empty());
}

TEST_CASE("more proposals than the arena was sized for are pooled all the same", "[detector]") {
  DetectorOptions options = on_cpu();
  options.max_image_pixels = 80 * 60;
  Detector detector(tiny_model(), options);
  const Picture picture(80, 60, 7);
  const std::vector<Proposal> many(20000, Proposal{0.5f, {5, 5, 50, 40}});
  DetectRequest given;
  given.proposals = &many;
  CHECK(detector.detect(picture.view, given).proposal_count == 20000);
  CHECK_NOTHROW(detector.detect(picture.view));
}

TEST_CASE("what a detector is not asked for is refused before anything happens", "[detector]") {
  DetectorOptions options = on_cpu();
  options.max_image_pixels = 5000;
  Detector detector(tiny_model(), options);
  CHECK(message_of([&] { detector.detect(ImageView{}); }, ErrorCode::invalid_argument).find("0x0") != std::string::npos);
  const Picture large(100, 60, 1), small(60, 60, 1);
  CHECK(message_of([&] { detector.detect(large.view); }, ErrorCode::invalid_argument).find("100x60") != std::string::npos);
  CHECK_NOTHROW(detector.detect(small.view));
  ImageView overlapping = small.view;
  overlapping.row_bytes = -179;
  const std::string overlap = message_of([&] { detector.detect(overlapping); }, ErrorCode::invalid_argument);
  CHECK(overlap.find("180") != std::string::npos);
  CHECK(overlap.find("-179") != std::string::npos);
  overlapping = {small.view.data, 60, 30, 60, PixelFormat::nv12, nullptr, 59};
  CHECK(message_of([&] { detector.detect(overlapping); }, ErrorCode::invalid_argument).find("59") != std::string::npos);
  const std::vector<float> data(3 * 4 * 4);
  CHECK_THROWS_AS(detector.run(data, 4, 5, {4, 5, 1}, {}), Error);
  CHECK_THROWS_AS(detector.run(data, 4, 4, {4, 4, 0}, {}), Error);
  CHECK_THROWS_AS(make_device("tpu"), Error);
  CHECK_THROWS_AS(make_device("cpu", Precision::fp16), Error);
}

TEST_CASE("two threads in one detector: one gets an error, neither gets nonsense", "[detector]") {
  Detector detector(tiny_model(), on_cpu());
  const Picture picture(80, 60, 8);
  const DetectResult expected = detector.detect(picture.view);
  std::atomic<int> right = 0, refused = 0, wrong = 0;
  const auto work = [&] {
    for (int i = 0; i < 200; ++i) {
      try {
        same(expected, detector.detect(picture.view)) ? ++right : ++wrong;
      } catch (const Error& e) {
        e.code() == ErrorCode::invalid_argument ? ++refused : ++wrong;
      }
    }
  };
  std::thread one(work), two(work);
  one.join();
  two.join();
  CHECK(wrong == 0);
  CHECK(right + refused == 400);
  CHECK(right > 0);
}

TEST_CASE("detectors in several threads share one model", "[detector]") {
  const auto model = tiny_model();
  const Picture picture(80, 60, 9);
  const DetectResult expected = Detector(model, on_cpu()).detect(picture.view);
  const std::size_t packed = model->weights.packed_bytes();
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&] {
      Detector own(model, on_cpu());
      for (int i = 0; i < 20; ++i)
        if (!same(expected, own.detect(picture.view))) ++wrong;
    });
  for (std::thread& t : threads) t.join();
  CHECK(wrong == 0);
  CHECK(model->weights.packed_bytes() == packed);
}
