// Pictures and weights at the edge of what has a meaning, on the CUDA device: eager, captured and replayed.
#include "tests/simt/detector_compare.h"
#include "tests/simt/detector_fixture.h"

using namespace frcnn;
using namespace frcnn::simt_test;
using simt::FakeMachine;

namespace {

std::shared_ptr<const Model> model_with(const char* layer, float value) {
  tiny::Tensors tensors = tiny::tensors(small_config());
  for (float& v : tensors[layer].values) v = value;
  return test::model_of(small_config(), tensors);
}

}  // namespace

TEST_CASE("an infinity on the CUDA device is traced to the first value that holds it, also by a replay") {
  FakeMachine machine;
  const Picture picture(32, 24, 5);
  for (const std::string layer : {"rpn_bbox_pred", "cls_score"}) {
    Detector detector(model_with((layer + ".weight").c_str(), 3e38f), options());
    for (int i = 0; i < 3; ++i) {  // kernel by kernel, then as a graph
      const std::string message = message_of([&] { detector.detect(picture.view); }, ErrorCode::numeric);
      INFO(message);
      CHECK(message.rfind(layer + ": ", 0) == 0);
    }
    CHECK(detector.session().stats().runs.replays == 2);
    machine.fail(1, cudaErrorMemoryAllocation, false, "cudaMalloc");  // tracing takes memory
    const std::string untraced = message_of([&] { detector.detect(picture.view); }, ErrorCode::numeric);
    CHECK(untraced.find("no memory to find out") != std::string::npos);
    CHECK(machine.failed());
  }
  CHECK(machine.violation() == "");
}

TEST_CASE("no proposal on the CUDA device: no detection, no failure") {
  const FakeMachine machine;
  ModelConfig config = small_config();
  config.rpn_min_size = 10000;
  Detector detector(tiny_model(config), options());
  DetectRequest request;
  request.want_proposals = true;
  for (int i = 0; i < 3; ++i) {
    const DetectResult result = detector.detect(Picture(32, 24, 6).view, request);
    CHECK(result.proposal_count == 0);
    CHECK(result.detections.empty());
    CHECK(result.proposals.empty());
  }
  CHECK(machine.violation() == "");
}

TEST_CASE("a picture of one pixel, and slivers, give on CUDA what they give on the CPU") {
  const FakeMachine machine;
  const auto model = small_model();
  Detector cpu(model, options("cpu")), cuda(model, options());
  DetectRequest request;
  request.want_proposals = request.want_tensors = true;
  std::size_t proposals = 0, detections = 0;
  for (const auto& [width, height] : {std::pair{1, 1}, {1, 3}, {5, 1}}) {
    INFO(width << "x" << height);
    const Picture picture(width, height, 7);
    const DetectResult want = cpu.detect(picture.view, request), got = cuda.detect(picture.view, request);
    REQUIRE(got.proposals.size() == want.proposals.size());
    proposals += got.proposals.size();
    for (std::size_t i = 0; i < want.proposals.size(); ++i)
      CHECK(box_distance(got.proposals[i].box, want.proposals[i].box.data()) <= box_tolerance);
    detections += compare_detections(got, want);
  }
  CHECK(proposals > 0);
  CHECK(detections > 0);
  CHECK(machine.violation() == "");
}
