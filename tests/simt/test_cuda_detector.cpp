// Whole detectors through the CUDA device on the emulator, against the CPU device.
#include <initializer_list>
#include <map>

#include "batch_inputs.h"
#include "behind_the_heads.h"
#include "detector/faster_rcnn.h"
#include "tests/simt/detector_cases.h"
#include "tests/simt/detector_checks.h"
#include "tests/simt/make_reference.h"

using namespace frcnn;
using namespace frcnn::simt_test;

namespace {

// In each test the machine is made first: a model gives what it packed for a device back when it goes.
using Case = DetectorCase;

void check(const simt::FakeMachine& machine, const Case& test_case,
           std::initializer_list<Precision> precisions, bool stages) {
  const DetectorReference reference = make_reference(test_case, stages);
  for (const Precision precision : precisions) {
    const bool exact = precision == Precision::fp32 || precision == Precision::tf32x3;
    const Compared compared =
        exact ? check_exact(test_case, reference, precision) : check_lossy(test_case, reference, precision);
    CHECK(machine.violation() == "");
    std::cout << test_case.name << " " << name_of(precision) << ": " << compared.detections << " detections, "
              << compared.elements << " elements compared, largest error " << compared.worst
              << " of what is allowed\n";
  }
}

constexpr auto exact_precisions = {Precision::fp32, Precision::tf32x3};
constexpr auto lossy_precisions = {Precision::tf32, Precision::fp16, Precision::bf16};

// ThreadSanitizer sees a race in any order, so one is enough there, as are smaller networks.
void in_every_order(const std::function<void()>& check) {
  for (const simt::Schedule& schedule : simt::kSchedules) {
    if (simt::kRaceCheck && schedule.order != simt::Order::forward) continue;
    simt::Settings settings = simt::settings();
    settings.schedule = schedule;
    const simt::ScopedSettings during(settings);
    check();
  }
}

// The same values in another order.
std::vector<float> nhwc(const NamedTensor& tensor) {
  const std::int64_t channels = tensor.shape[1], plane = tensor.shape[2] * tensor.shape[3];
  std::vector<float> result(tensor.data.size());
  for (std::int64_t c = 0; c < channels; ++c)
    for (std::int64_t p = 0; p < plane; ++p)
      result[static_cast<std::size_t>(p * channels + c)] =
          tensor.data[static_cast<std::size_t>(c * plane + p)];
  return result;
}

std::size_t check_behind_the_heads(const simt::FakeMachine& machine, const Case& test_case) {
  INFO(test_case.name);
  Detector cpu(test_case.model, options_for(test_case, "cpu", Precision::fp32));
  DetectRequest everything;
  everything.want_tensors = true;
  const DetectResult made = cpu.detect(test_case.view(), everything);
  const ImageView image = test_case.view();
  const test::BatchInputs inputs(*test_case.model, std::span(&image, 1));
  const Graph graph = test::behind_the_heads(build_graph(*test_case.model, inputs.request));
  const std::vector<float> im_info(inputs.im_info[0].begin(), inputs.im_info[0].end()),
      size(inputs.image_size[0].begin(), inputs.image_size[0].end());
  const Weights none({}, "none");
  const auto run = [&](Device& device) {
    Executable executable(graph, {}, none, device);
    for (const Value& value : graph.values()) {
      if (value.role != Role::input) continue;
      if (value.name == "map_sizes") {
        executable.set(value.name, inputs.map_sizes.data(), sizeof inputs.map_sizes[0]);
        continue;
      }
      const NamedTensor* const tensor = find(made, value.name);
      std::vector<float> values = value.name == "im_info"      ? im_info
                                  : value.name == "image_size" ? size
                                                               : std::vector<float>();
      if (tensor) values = tensor->shape.rank == 4 ? nhwc(*tensor) : tensor->data;
      REQUIRE_FALSE(values.empty());
      values.resize(static_cast<std::size_t>(value.spec.shape.elements()), 0.0f);  // rows beyond the count
      executable.set(value.name, values.data(), value.spec.bytes());
    }
    executable.run();
    std::map<std::string, std::vector<unsigned char>> bytes;
    for (const Value& value : graph.values()) {
      if (value.role == Role::input) continue;
      bytes[value.name].resize(value.spec.bytes());
      executable.get(value.name, bytes[value.name].data(), value.spec.bytes());
    }
    return bytes;
  };
  const auto host = make_device("cpu", Precision::fp32, 1), device = make_device("cuda:0");
  auto want = run(*host), got = run(*device);
  // Rows beyond a count mean nothing.
  const auto trim = [](std::map<std::string, std::vector<unsigned char>>& values, const char* name,
                       const char* count, std::size_t row) {
    std::int32_t rows = 0;
    std::memcpy(&rows, values.at(count).data(), sizeof rows);
    REQUIRE(rows > 0);
    values.at(name).resize(static_cast<std::size_t>(rows) * row);
  };
  std::size_t elements = 0;
  for (auto* values : {&want, &got}) {
    trim(*values, "boxes@top", "count@top", 16);
    trim(*values, "scores@top", "count@top", 4);
    trim(*values, "rois", "rois_count", 20);
    trim(*values, "roi_scores", "rois_count", 4);
    trim(*values, "detections", "detections_count", 24);
  }
  for (const auto& [name, bytes] : want) {
    INFO(name);
    CHECK((bytes == got.at(name)));
    elements += bytes.size() / 4;
  }
  CHECK(machine.violation() == "");
  return elements;
}

// Every value in memory of its own, between guards, unset before it is written and after its last use: the
// results must not notice. An arena hides a kernel that reads what it should not.
std::size_t check_guarded(const simt::FakeMachine& machine, const Case& test_case, Precision precision) {
  INFO(test_case.name << " " << name_of(precision));
  const auto device = make_device("cuda:0", precision);
  const ImageView image = test_case.view();
  const test::BatchInputs inputs(*test_case.model, std::span(&image, 1));
  const Graph graph = build_graph(*test_case.model, inputs.request);
  const auto run = [&](ProgramMemory memory) {
    Executable executable(graph, {}, test_case.model->weights, *device, {memory});
    inputs.feed(executable);  // the emulated device reads the host's memory
    executable.run();
    std::int32_t count = 0;
    executable.get("detections_count", &count, sizeof count);
    REQUIRE(count > 0);
    std::vector<float> detections(static_cast<std::size_t>(count) * 6);
    executable.get("detections", detections.data(), detections.size() * sizeof(float));
    return detections;
  };
  const std::vector<float> in_arena = run(ProgramMemory::arena);
  CHECK(in_arena == run(ProgramMemory::guarded));
  CHECK(machine.violation() == "");
  return in_arena.size() / 6;
}

}  // namespace

TEST_CASE("a detector on the CUDA device finds what the CPU finds") {
  const simt::FakeMachine machine;
  check(machine, random_case(), exact_precisions, true);
}

TEST_CASE("a detector on the CUDA device finds the same in every order of its threads", "[.long]") {
  const simt::FakeMachine machine;
  in_every_order([&] { check(machine, random_case(), exact_precisions, true); });
}

TEST_CASE("a detector on the CUDA device does not notice guarded memory") {
  const simt::FakeMachine machine;
  const Case test_case = random_case();
  for (const Precision precision : {Precision::fp32, Precision::tf32x3, Precision::fp16, Precision::bf16})
    CHECK(check_guarded(machine, test_case, precision) > 0);
}

TEST_CASE("tiny networks on the CUDA device find what the CPU finds") {
  const simt::FakeMachine machine;
  const tool::TempDir dir;
  for (const Case& test_case : golden_cases(simt::kRaceCheck ? 48 : 112, dir))
    check(machine, test_case, exact_precisions, false);
}

TEST_CASE("tiny networks on the CUDA device agree stage by stage, at the size of the reference", "[.long]") {
  const simt::FakeMachine machine;
  const tool::TempDir dir;
  for (const Case& test_case : golden_cases(simt::kRaceCheck ? 96 : 224, dir))
    check(machine, test_case, exact_precisions, true);
}

TEST_CASE("lower precisions of the CUDA device lose at most twice what they must") {
  const simt::FakeMachine machine;
  check(machine, random_case(), lossy_precisions, true);
}

TEST_CASE("tiny networks on the CUDA device do not notice guarded memory", "[.long]") {
  const simt::FakeMachine machine;
  const tool::TempDir dir;
  for (const Case& test_case : golden_cases(96, dir))
    for (const Precision precision : {Precision::fp32, Precision::fp16})
      CHECK(check_guarded(machine, test_case, precision) > 0);
}

TEST_CASE("lower precisions of the CUDA device, tiny networks", "[.long]") {
  const simt::FakeMachine machine;
  const tool::TempDir dir;
  for (const Case& test_case : golden_cases(96, dir)) check(machine, test_case, lossy_precisions, true);
}

TEST_CASE("behind the heads the CUDA device gives the bits of the CPU") {
  const simt::FakeMachine machine;
  const tool::TempDir dir;
  std::vector<Case> cases = golden_cases(96, dir);
  cases.push_back(random_case());
  for (const Case& test_case : cases) {
    const std::size_t elements = check_behind_the_heads(machine, test_case);
    std::cout << test_case.name << ": " << elements << " elements behind the heads, bit for bit\n";
    CHECK(elements > 100);
  }
}

TEST_CASE("a network input given as f32 is served by 16-bit programs") {
  const simt::FakeMachine machine;
  const Case test_case = random_case();
  const DetectResult made = [&] {
    DetectRequest everything;
    everything.want_tensors = true;
    return Detector(test_case.model, options_for(test_case, "cpu", Precision::fp32))
        .detect(test_case.view(), everything);
  }();
  const NamedTensor* const data = find(made, "data");
  REQUIRE(data);
  const std::array<float, 3> im_info{static_cast<float>(data->shape[2]), static_cast<float>(data->shape[3]),
                                     static_cast<float>(made.scale)};
  DetectRequest request;
  request.want_tensors = true;
  for (const Precision precision : {Precision::fp16, Precision::bf16}) {
    INFO(name_of(precision));
    Detector cuda(test_case.model, options_for(test_case, "cuda:0", precision));
    Detector plain(test_case.model, std::make_shared<PlainDevice>(precision),
                   options_for(test_case, "", precision));
    const auto run = [&](Detector& detector) {
      return detector.run(data->data, data->shape[2], data->shape[3], im_info, {}, request);
    };
    const DetectResult got = run(cuda), by_plain = run(plain);
    for (const char* name : {"conv1", "rpn_cls_prob_reshape", "rpn_bbox_pred"}) {
      const NamedTensor *ours = find(got, name), *theirs = find(by_plain, name), *exact = find(made, name);
      REQUIRE((ours && theirs && exact));
      const double error = relative_error(*ours, *exact), plainly = relative_error(*theirs, *exact);
      INFO(name << ": " << error << ", of a plain implementation " << plainly);
      CHECK(plainly > 0);
      CHECK(error <= 2 * plainly);
    }
    CHECK_FALSE(cuda.run(data->data, data->shape[2], data->shape[3], im_info, {}).detections.empty());
  }
}
