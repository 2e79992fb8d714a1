// Batches of images of different sizes, on the CPU.
#include <cmath>

#include "batch_checks.h"
#include "frcnn/error.h"

using namespace frcnn;
using namespace frcnn::test;

namespace {

DetectorOptions on_cpu(int max_batch, int threads = 1) {
  DetectorOptions options;
  options.device = "cpu";
  options.threads = threads;
  options.max_batch = max_batch;
  return options;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

DetectRequest with_proposals() {
  DetectRequest request;
  request.want_proposals = true;
  return request;
}

}  // namespace

TEST_CASE("four images of four sizes in one batch are behind the heads what each is alone", "[batch]") {
  const std::vector<AnyPicture> pictures = mixed_pictures();
  const std::vector<ImageView> views = views_of(pictures);
  ModelConfig align = tiny::config(), aligned = tiny::config();
  align.roi_op = aligned.roi_op = RoiOp::align;
  aligned.roi_aligned = true;
  aligned.roi_sampling_ratio = 2;
  for (const ModelConfig& config : {tiny::config(), align, aligned}) {
    const auto model = model_of(config, tiny::tensors(config));
    Detector detector(model, on_cpu(4));
    const std::size_t compared = check_behind_the_heads(*model, detector, views);
    CHECK(compared > 5000);
  }
}

TEST_CASE("padding is zero where an image ends, behind mean subtraction", "[batch]") {
  const std::vector<AnyPicture> pictures = mixed_pictures();
  const std::vector<ImageView> views = views_of(pictures);
  const auto model = tiny_model();
  Detector detector(model, on_cpu(4));
  DetectRequest request;
  request.want_tensors = true;
  const std::vector<DetectResult> batch = detector.detect(views, request);
  const BatchInputs inputs(*model, views);
  CHECK(inputs.request.height == 96);  // of the upright one
  CHECK(inputs.request.width == 85);   // of the wide one
  for (std::size_t n = 0; n < views.size(); ++n) {
    INFO("image " << n);
    const DetectResult alone = detector.detect(views[n], request);
    const NamedTensor *padded = tensor_of(batch[n], "data"), *own = tensor_of(alone, "data");
    REQUIRE((padded && own));
    const std::int64_t h = own->shape[2], w = own->shape[3], height = padded->shape[2],
                       width = padded->shape[3];
    CHECK(height == inputs.request.height);
    CHECK(width == inputs.request.width);
    CHECK(inputs.im_info[n][0] == static_cast<float>(h));
    CHECK(inputs.im_info[n][1] == static_cast<float>(w));
    std::size_t wrong = 0;
    for (std::int64_t c = 0; c < 3; ++c)
      for (std::int64_t y = 0; y < height; ++y)
        for (std::int64_t x = 0; x < width; ++x) {
          const float got = padded->data[static_cast<std::size_t>((c * height + y) * width + x)];
          const bool inside = y < h && x < w;
          wrong += got != (inside ? own->data[static_cast<std::size_t>((c * h + y) * w + x)] : 0.0f);
        }
    CHECK(wrong == 0);
    // What the request asks for is of this image alone.
    CHECK(tensor_of(batch[n], "detections")->shape[0] ==
          static_cast<std::int64_t>(batch[n].detections.size()));
    CHECK(tensor_of(batch[n], "im_info")->shape == Shape{1, 3});
  }
}

TEST_CASE("images of one size give in a batch what they give alone, to the bit", "[batch]") {
  // The products of this network run by the same algorithm for one image and for several.
  std::vector<AnyPicture> pictures;
  for (unsigned seed : {1u, 2u, 3u}) pictures.emplace_back(80, 60, seed);
  const std::vector<ImageView> views = views_of(pictures);
  for (const int threads : {1, 3}) {
    Detector detector(tiny_model(), on_cpu(3, threads));
    const std::vector<DetectResult> batch = detector.detect(views, with_proposals());
    REQUIRE(batch.size() == 3);
    for (std::size_t n = 0; n < 3; ++n) {
      INFO("image " << n << ", " << threads << " threads");
      CHECK_FALSE(batch[n].detections.empty());
      CHECK(same_result(batch[n], detector.detect(views[n], with_proposals())));
      CHECK(same_result(batch[n], detector.detect(std::span(&views[n], 1), with_proposals())[0]));
    }
    CHECK_FALSE(same_result(batch[0], batch[1]));
  }
}

TEST_CASE("an image gives the same at every place of a batch, whatever lies beside it", "[batch]") {
  const std::vector<AnyPicture> pictures = mixed_pictures();
  const std::vector<ImageView> views = views_of(pictures);
  Detector detector(tiny_model(), on_cpu(5));
  // The largest in either direction are in both, so that the padding is the same.
  const std::vector<ImageView> one{views[3], views[0], views[1], views[3]},
      other{views[1], views[2], views[3], views[0], views[1]};
  const auto first = detector.detect(one, with_proposals()),
             second = detector.detect(other, with_proposals());
  CHECK_FALSE(first[0].detections.empty());
  CHECK(same_result(first[0], first[3]));
  CHECK(same_result(first[0], second[2]));
  CHECK(same_result(first[1], second[3]));
  CHECK(same_result(first[2], second[0]));
  CHECK(same_result(second[0], second[4]));
  CHECK(same_result(detector.detect(views[0]), detector.detect(views[0])));
}

TEST_CASE("an image without any proposal leaves the others of its batch alone", "[batch]") {
  // One pixel, magnified 64 times: nothing in it is as large as the smallest proposal.
  const std::vector<AnyPicture> pictures = mixed_pictures();
  const std::vector<ImageView> views = views_of(pictures);
  Detector detector(tiny_model(), on_cpu(4));
  const auto batch = detector.detect(views, with_proposals());
  CHECK(batch[2].proposal_count == 0);
  CHECK(batch[2].proposals.empty());
  CHECK(batch[2].detections.empty());
  for (const std::size_t n : {0u, 1u, 3u}) {
    CHECK(batch[n].proposal_count > 0);
    CHECK(batch[n].proposals.size() == static_cast<std::size_t>(batch[n].proposal_count));
    CHECK_FALSE(batch[n].detections.empty());
  }
  const std::vector<ImageView> pixels{views[2], views[2]};
  for (const DetectResult& result : detector.detect(pixels)) CHECK(result.detections.empty());
}

TEST_CASE("anchors in the padding never become proposals", "[batch]") {
  const auto model = fond_of_padding();
  AnyPicture wide(96, 64, 1), small(40, 64, 2);
  for (auto* picture : {&wide, &small})
    std::fill(picture->bytes.begin(), picture->bytes.end(), std::uint8_t{255});
  const std::vector<ImageView> views{wide.view, small.view};
  BatchInputs inputs(*model, views);
  const auto device = make_cpu_device(1);
  const auto most = [&] {
    Executable executable(build_graph(*model, inputs.request), {}, model->weights, *device);
    inputs.feed(executable);
    executable.run();
    std::vector<float> scores(static_cast<std::size_t>(executable.view("roi_scores").shape[0]));
    executable.get("roi_scores", scores.data(), scores.size() * sizeof(float));
    return *std::max_element(scores.begin() + static_cast<std::ptrdiff_t>(scores.size() / 2), scores.end());
  };
  CHECK(most() < 0.49f);
  // Were the second image's map as large as the batch's, its best proposals would come from there.
  inputs.map_sizes[1] = inputs.map_sizes[0];
  CHECK(most() == 0.5f);
  Detector detector(model, on_cpu(2));
  for (const DetectResult& result : detector.detect(views, with_proposals())) {
    CHECK_FALSE(result.proposals.empty());
    for (const Proposal& proposal : result.proposals) CHECK(proposal.score < 0.49f);
  }
}

TEST_CASE("proposals are given to each image of a batch", "[batch]") {
  const std::vector<AnyPicture> pictures = mixed_pictures();
  const std::vector<ImageView> views = views_of(pictures);
  Detector detector(tiny_model(), on_cpu(4));
  const auto own = detector.detect(views, with_proposals());
  std::vector<std::vector<Proposal>> lists;
  for (const DetectResult& result : own) lists.push_back(result.proposals);
  lists[1].resize(3);
  DetectRequest given = with_proposals();
  given.proposals = lists.data();
  const auto again = detector.detect(views, given);
  for (std::size_t n = 0; n < views.size(); ++n) {
    INFO("image " << n);
    REQUIRE(again[n].proposals.size() == lists[n].size());
    for (std::size_t i = 0; i < lists[n].size(); ++i) {
      CHECK(again[n].proposals[i].score == lists[n][i].score);
      for (std::size_t k = 0; k < 4; ++k)  // there and back through the scale
        CHECK(again[n].proposals[i].box[k] == Approx(lists[n][i].box[k]).epsilon(1e-6).margin(1e-5));
    }
    if (n != 1) CHECK(again[n].detections.size() == own[n].detections.size());
  }
}

TEST_CASE("messages about a batch name the image", "[batch]") {
  const AnyPicture a(80, 60, 1), b(50, 70, 2), large(100, 80, 3), flat(4000, 1, 4);
  DetectorOptions options = on_cpu(3);
  options.max_image_pixels = 5000;
  Detector detector(tiny_model(), options);
  const auto expected = detector.detect(a.view);
  const auto refused = [&](const std::vector<ImageView>& views) {
    const std::string message = message_of([&] { detector.detect(views); }, ErrorCode::invalid_argument);
    CHECK(same_result(expected, detector.detect(a.view)));
    return message;
  };
  const std::string many = refused({a.view, b.view, a.view, b.view});
  CHECK(contains(many, "4 images"));
  CHECK(contains(many, "at most 3"));
  CHECK(refused({a.view, b.view, {}}).rfind("image 2: an image of 0x0", 0) == 0);
  CHECK(refused({a.view, large.view}).rfind("image 1: an image of 100x80", 0) == 0);
  CHECK(contains(refused({flat.view, a.view}), "image 0: an image of 4000x1 pixels has no pixel left"));
  ImageView overlapping = b.view;
  overlapping.row_bytes = 149;
  CHECK(refused({a.view, overlapping}).rfind("image 1: ", 0) == 0);
  ImageView elsewhere = b.view;
  elsewhere.memory = PixelMemory::device;
  const std::string on_device = refused({a.view, a.view, elsewhere});
  CHECK(on_device.rfind("image 2: ", 0) == 0);
  CHECK(contains(on_device, "computes on cpu"));
  CHECK(message_of([&] { detector.detect(elsewhere); }, ErrorCode::invalid_argument).rfind("its pixels", 0) ==
        0);
  CHECK(detector.detect(std::span<const ImageView>()).empty());
  CHECK(contains(message_of([&] { Detector(tiny_model(), on_cpu(0)); }, ErrorCode::invalid_argument),
                 "max_batch 0"));
}

TEST_CASE("an infinity is traced to the image of a batch that holds it", "[batch]") {
  ModelConfig config = tiny::config();
  config.pixel_mean = {0, 0, 0};
  tiny::Tensors tensors = tiny::tensors(config);
  // Black pixels stay exactly zero up to the RPN's heads.
  for (auto& [name, tensor] : tensors)
    if (name.find(".bias") != std::string::npos) std::fill(tensor.values.begin(), tensor.values.end(), 0.0f);
  for (float& v : tensors["rpn_bbox_pred.weight"].values) v = 3e38f;
  const auto model = model_of(config, tensors);
  AnyPicture black(80, 60, 1), bright(60, 80, 2);
  std::fill(black.bytes.begin(), black.bytes.end(), std::uint8_t{0});
  Detector detector(model, on_cpu(3));
  const std::vector<ImageView> views{black.view, bright.view, black.view}, dark{black.view, black.view};
  const std::string message = message_of([&] { detector.detect(views); }, ErrorCode::numeric);
  INFO(message);
  CHECK(message.rfind("image 1: rpn_bbox_pred: ", 0) == 0);
  CHECK_NOTHROW(detector.detect(dark));
}

TEST_CASE("every batch up to the largest fits the arena reserved at the start", "[batch]") {
  const auto model = tiny_model();
  Detector detector(model, on_cpu(4));
  const std::size_t arena = detector.session().arena_bytes();
  CHECK(Detector(model, on_cpu(1)).session().arena_bytes() < arena);
  std::mt19937 random(5);
  for (int i = 0; i < 40; ++i) {
    std::vector<AnyPicture> pictures;
    const std::size_t count = 1 + random() % 4;
    while (pictures.size() < count)
      pictures.emplace_back(20 + static_cast<int>(random() % 200), 20 + static_cast<int>(random() % 200), 1u);
    const std::vector<ImageView> views = views_of(pictures);
    const BatchInputs inputs(*model, views);
    INFO(count << " images in " << inputs.request.width << "x" << inputs.request.height);
    const Executable one(build_graph(*model, inputs.request), {}, model->weights, detector.device());
    CHECK(one.plan().arena_bytes <= arena);
  }
}

TEST_CASE("one plan serves originals of every size and format that become as large", "[batch]") {
  Detector detector(tiny_model(), on_cpu(2));
  const AnyPicture a(80, 60, 1), b(160, 120, 2, PixelFormat::nv12), c(40, 30, 3, PixelFormat::rgb, 7, true);
  const std::vector<ImageView> first{a.view, b.view}, second{c.view, a.view};
  detector.detect(first);
  const Executable* const plan = detector.session().latest();
  detector.detect(second);
  CHECK(detector.session().latest() == plan);
  CHECK(detector.session().stats().plans == 1);
  detector.detect(a.view);
  detector.detect(b.view);
  CHECK(detector.session().stats().plans == 2);
}

TEST_CASE("a batch does not notice guarded memory", "[batch]") {
  const auto model = tiny_model();
  const auto device = make_cpu_device(2);
  const std::vector<AnyPicture> pictures = mixed_pictures();
  const std::vector<ImageView> views = views_of(pictures);
  const BatchInputs inputs(*model, views);
  const auto run = [&](ProgramMemory memory) {
    Executable executable(build_graph(*model, inputs.request), {}, model->weights, *device, {memory});
    inputs.feed(executable);
    executable.run();
    std::vector<float> detections(static_cast<std::size_t>(executable.view("detections").shape.elements()));
    executable.get("detections", detections.data(), detections.size() * sizeof(float));
    return detections;
  };
  const std::vector<float> in_arena = run(ProgramMemory::arena);
  CHECK(std::any_of(in_arena.begin(), in_arena.end(), [](float v) { return v != 0; }));
  CHECK(in_arena == run(ProgramMemory::guarded));
}
