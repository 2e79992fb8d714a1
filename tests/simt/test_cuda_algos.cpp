// The libraries' kernels in place of ours, with fake libraries on the fake runtime.
#include <filesystem>
#include <iostream>

#include "batch_inputs.h"
#include "detector/faster_rcnn.h"
#include "runtime/device.h"
#include "tests/simt/algo_fixture.h"
#include "tests/simt/detector_cases.h"
#include "tests/simt/detector_checks.h"
#include "tests/simt/make_reference.h"
#include "vendor/cudnn_api.h"

using namespace frcnn;
using namespace frcnn::simt_test;
using simt::FakeMachine;

namespace {

const GpuOptions kLibraries = gpu_with(Algo::cudnn);

bool starts(const std::string& text, const std::string& with) { return text.rfind(with, 0) == 0; }

}  // namespace

TEST_CASE("detectors with the libraries' kernels find what the CPU finds, in every precision", "[algos]") {
  FakeMachine machine;
  const FakeLibraries libraries;
  const tool::TempDir dir;
  std::vector<DetectorCase> cases{random_case()};
  if (!simt::kRaceCheck)
    for (DetectorCase& golden : golden_cases(64, dir)) cases.push_back(std::move(golden));
  for (const DetectorCase& test_case : cases) {
    const bool stages = test_case.name == cases[0].name;
    const DetectorReference reference = make_reference(test_case, stages);
    for (const Precision precision : {Precision::fp32, Precision::tf32, Precision::fp16, Precision::bf16}) {
      if (precision != Precision::fp32 && !stages) continue;
      const int before = libraries.runs();
      const Compared compared = precision == Precision::fp32
                                    ? check_exact(test_case, reference, precision, kLibraries)
                                    : check_lossy(test_case, reference, precision, kLibraries);
      CHECK(libraries.runs() > before + 10);
      std::cout << test_case.name << " " << name_of(precision) << " by the libraries: " << compared.detections
                << " detections, " << compared.elements << " elements compared, largest error " << compared.worst
                << " of what is allowed\n";
    }
  }
  CHECK(libraries.alive() == 0);
  CHECK(machine.violation() == "");
}

TEST_CASE("every kernel's name says whose it is, and its arithmetic is the precision's", "[algos]") {
  FakeMachine machine;
  FakeLibraries libraries;
  const auto model = small_model();
  const Picture picture(32, 24, 1);
  namespace api = vendor::cudnn;
  const struct {
    Precision precision;
    const char* name;
    int cudnn_math, compute;
  } all[] = {{Precision::fp32, "fp32", api::fma_math, 68},
             {Precision::tf32, "tf32", api::default_math, 77},
             {Precision::fp16, "fp16", api::tensor_op_math, 68},
             {Precision::bf16, "bf16", api::tensor_op_math, 68}};
  for (const auto& [precision, name, cudnn_math, compute] : all) {
    INFO(name);
    libraries.reset_counts();
    Detector detector(model, options_with(kLibraries, precision));
    detector.detect(picture.view);
    CHECK(libraries.cublaslt.last_math == compute);
    std::size_t pooled = 0, convolutions = 0, products = 0;
    for (const auto& [layer, kernel] : kernels_of(detector)) {
      INFO(layer << ": " << kernel);
      const bool cudnn = starts(kernel, "cudnn:implicit_precomp_gemm:"), lt = starts(kernel, "cublaslt:algo7:");
      CHECK((cudnn || lt));
      CHECK(contains(kernel, std::string(":") + name));
      pooled += contains(kernel, "+max_pool");
      convolutions += cudnn;
      products += lt;
    }
    CHECK(pooled >= 1);
    CHECK(convolutions >= 2);
    CHECK(products >= 3);
    CHECK(detector.device().libraries() == std::vector<std::string>{"cuDNN 9.19.0", "cuBLASLt 13.1.0"});
    CHECK(libraries.cudnn.last_math == cudnn_math);
  }
  // 3xTF32 is ours alone.
  libraries.reset_counts();
  Detector ours(model, options("cuda:0", Precision::tf32x3));
  Detector split(model, options_with(kLibraries, Precision::tf32x3));
  CHECK(same_bits(ours.detect(picture.view), split.detect(picture.view)));
  CHECK(of_libraries(split) == 0);
  CHECK(libraries.runs() == 0);
  CHECK(machine.violation() == "");
}

TEST_CASE("the libraries' kernels are captured, replayed, and allocate nothing", "[algos]") {
  FakeMachine machine;
  FakeLibraries libraries;
  const auto model = small_model();
  DetectorOptions eager = options_with(kLibraries);
  eager.gpu.graphs = false;
  Detector detector(model, options_with(kLibraries)), plain(model, eager);
  const Picture picture(32, 24, 1), other(32, 24, 2);
  const DetectResult first = detector.detect(picture.view), second = plain.detect(other.view);
  CHECK_FALSE(first.detections.empty());
  CHECK(of_libraries(detector) >= 5);
  machine.reset_counts();
  libraries.reset_counts();
  for (int i = 0; i < 2; ++i) {
    CHECK(same_bits(first, detector.detect(picture.view)));
    CHECK(same_bits(second, detector.detect(other.view)));  // a replay reads what is there then
  }
  CHECK(libraries.runs() == 0);
  CHECK(machine.count("cudaGraphLaunch") == 4);
  CHECK(machine.count("cudaStreamSynchronize") == 4);
  CHECK(machine.count("cudaMalloc") + machine.count("cudaHostAlloc") == 0);
  CHECK(detector.session().stats().allocations_since_plan == 0);
  CHECK(same_bits(first, plain.detect(picture.view)));
  CHECK(libraries.runs() >= 5);
  CHECK(machine.count("cudaMalloc") == 0);
  CHECK(machine.violation() == "");
}

// Every value alone, between guards: a library's kernel, with our pooling behind it, writes where it should.
TEST_CASE("the libraries' kernels do not notice guarded memory", "[algos]") {
  FakeMachine machine;
  const FakeLibraries libraries;
  const DetectorCase test_case = random_case();
  const ImageView image = test_case.view();
  const test::BatchInputs inputs(*test_case.model, std::span(&image, 1));
  const Graph graph = build_graph(*test_case.model, inputs.request);
  for (const Precision precision : {Precision::fp32, Precision::fp16}) {
    const auto device = make_device("cuda:0", precision, 0, nullptr, kLibraries);
    const auto run = [&](ProgramMemory memory) {
      Executable executable(graph, {}, test_case.model->weights, *device, {memory});
      inputs.feed(executable);
      executable.run();
      std::vector<float> detections(executable.view("detections").bytes() / sizeof(float));
      executable.get("detections", detections.data(), detections.size() * sizeof(float));
      std::int32_t count = 0;
      executable.get("detections_count", &count, sizeof count);
      REQUIRE(count > 0);
      detections.resize(static_cast<std::size_t>(count) * 6);
      return detections;
    };
    CHECK(run(ProgramMemory::arena) == run(ProgramMemory::guarded));
  }
  CHECK(libraries.runs() > 10);
  CHECK(machine.violation() == "");
}

TEST_CASE("without both libraries, or where one does not start, cudnn is an error that says so, and auto is ours", "[algos]") {
  FakeMachine machine;
  FakeLibraries libraries;
  const auto model = small_model();
  const Picture picture(32, 24, 1);
  const DetectResult expected = Detector(model, options()).detect(picture.view);
  const auto refused = [&](const std::vector<std::string>& parts, ErrorCode code = ErrorCode::unsupported) {
    const std::size_t alive = machine.allocations_alive();
    const std::string message = message_of([&] { Detector(model, options_with(kLibraries)); }, code);
    INFO(message);
    for (const std::string& part : parts) CHECK(contains(message, part));
    // Which never turns into the CPU.
    message_of([&] { make_device("auto", Precision::fp32, 0, nullptr, kLibraries); }, code);
    CHECK(machine.allocations_alive() == alive);
    CHECK(libraries.alive() == 0);
    if (code == ErrorCode::out_of_memory) {
      message_of([&] { Detector(model, options_with(gpu_with(Algo::automatic, true))); }, code);
      return;
    }
    Detector automatic(model, options_with(gpu_with(Algo::automatic, true)));
    CHECK(compare_detections(automatic.detect(picture.view), expected) > 0);  // of the other library, perhaps
  };
  {
    const ScopedVariable cudnn("FRCNN_CUDNN", libraries / "none.so");
    refused({"cuDNN was not found", "FRCNN_CUDNN", libraries / "none.so", "No such file"});
    const ScopedVariable cublaslt("FRCNN_CUBLASLT", libraries / "none.so");
    const auto found = find_gpu_libraries();
    REQUIRE(found.size() == 2);
    CHECK_FALSE((found[0].usable || found[1].usable));
    CHECK(contains(found[1].text, "cuBLASLt was not found"));
  }
  {
    const ScopedVariable cublaslt("FRCNN_CUBLASLT", libraries / "none.so");
    refused({"cuBLASLt was not found", "FRCNN_CUBLASLT"});
  }
  {
    const ScopedVariable cudnn("FRCNN_CUDNN", FRCNN_FAKE_CUBLASLT);
    refused({"cuDNN: ", FRCNN_FAKE_CUBLASLT, "has no function cudnnGetVersion"});
  }
  libraries.cudnn.version = 8907;
  refused({"cuDNN: ", FRCNN_FAKE_CUDNN, "version 8907", "9 is needed"});
  libraries.behave();
  libraries.cublaslt.version = 110000;
  refused({"cuBLASLt: ", "version 110000", "12 or 13"});
  libraries.behave();
  libraries.cudnn.create_status = 1001;
  refused({"cuDNN 9.19.0", "cudnnCreate", "(1001)"}, ErrorCode::device);
  libraries.cudnn.create_status = 4004;
  refused({"cudnnCreate", "(4004)"}, ErrorCode::out_of_memory);
  libraries.behave();
  libraries.cublaslt.create_status = 3;
  refused({"cuBLASLt 13.1.0", "cublasLtCreate", "CUBLAS_STATUS_ALLOC_FAILED"}, ErrorCode::out_of_memory);
  libraries.behave();
  const auto found = find_gpu_libraries();
  CHECK((found[0].usable && found[1].usable));
  CHECK(contains(found[0].text, "9.19.0, "));
  CHECK(machine.violation() == "");
}

TEST_CASE("layers that a library does not take are ours", "[algos]") {
  FakeMachine machine;
  FakeLibraries libraries;
  const auto model = small_model();
  const Picture picture(32, 24, 1);
  const DetectResult expected = Detector(model, options()).detect(picture.view);
  const auto all_ours = [&](FakeLibrary& library, int FakeLibrary::*setting, int value) {
    libraries.reset_counts();
    library.*setting = value;
    Detector detector(model, options_with(kLibraries));
    const DetectResult got = detector.detect(picture.view);
    CHECK(compare_detections(got, expected) > 0);
    const char* const name = &library == &libraries.cudnn ? "cudnn:" : "cublaslt:";
    for (const auto& [layer, kernel] : kernels_of(detector)) {
      INFO(layer << ": " << kernel);
      CHECK_FALSE(starts(kernel, name));
    }
    CHECK(library.runs == 0);
    libraries.behave();
    CHECK(machine.violation() == "");
  };
  for (FakeLibrary* library : {&libraries.cudnn, &libraries.cublaslt}) {
    all_ours(*library, &FakeLibrary::heuristic_status, library == &libraries.cudnn ? 3002 : 15);
    all_ours(*library, &FakeLibrary::none_found, 1);
    all_ours(*library, &FakeLibrary::run_status, library == &libraries.cudnn ? 3000 : 15);  // as late as that
  }
  libraries.cudnn.workspace = libraries.cublaslt.workspace = std::size_t{1} << 30;
  Detector detector(model, options_with(kLibraries));
  CHECK(same_bits(expected, detector.detect(picture.view)));
  CHECK(of_libraries(detector) == 0);
  // The arena was sized while they took nothing; what they take of other sizes has room all the same.
  libraries.behave();
  CHECK(compare_detections(detector.detect(Picture(28, 20, 2).view),
                           Detector(model, options()).detect(Picture(28, 20, 2).view)) > 0);
  CHECK(of_libraries(detector) > 0);
  CHECK(machine.violation() == "");
}

TEST_CASE("without memory to try a library in, a layer is ours until there is some", "[algos]") {
  FakeMachine machine;
  const FakeLibraries libraries;
  const auto model = small_model();
  const Picture picture(32, 24, 1), other(28, 20, 2);
  const DetectResult expected = Detector(model, options()).detect(other.view);
  Detector detector(model, options_with(kLibraries));
  detector.detect(picture.view);
  machine.fail(1, cudaErrorMemoryAllocation, false, "cudaMalloc");  // of the first trial of the new size
  CHECK(compare_detections(detector.detect(other.view), expected) > 0);
  CHECK(machine.failed());
  CHECK(machine.violation() == "");
}

TEST_CASE("a library that fails says which one, where and in which layer, and the next detection is right",
          "[algos]") {
  FakeMachine machine;
  FakeLibraries libraries;
  const auto model = small_model();
  const Picture picture(32, 24, 1), larger(32, 32, 1);
  Detector detector(model, options_with(kLibraries));
  DetectorOptions eager = options_with(kLibraries);
  eager.gpu.graphs = false;
  Detector plain(model, eager);
  const DetectResult expected = plain.detect(picture.view);
  libraries.cudnn.run_status = 5000;
  for (const auto& attempt : {std::function<void()>([&] { plain.detect(picture.view); }),
                              std::function<void()>([&] { detector.detect(larger.view); })}) {
    const std::string message = message_of(attempt, ErrorCode::device);
    CHECK(starts(message, "conv1: cuDNN 9.19.0: cudnnConvolutionBiasActivationForward: "));
    CHECK(contains(message, "CUDNN_STATUS_EXECUTION_FAILED (5000)"));
  }
  libraries.behave();
  libraries.cublaslt.run_status = 13;
  const std::string message = message_of([&] { plain.detect(picture.view); }, ErrorCode::device);
  CHECK(contains(message, ": cuBLASLt 13.1.0: cublasLtMatmul: CUBLAS_STATUS_EXECUTION_FAILED (13)"));
  libraries.behave();
  libraries.cudnn.heuristic_status = 4000;
  CHECK(contains(message_of([&] { detector.detect(larger.view); }, ErrorCode::device),
                 "conv1: cuDNN 9.19.0: cudnnGetConvolutionForwardAlgorithm_v7"));
  libraries.behave();
  CHECK(same_bits(expected, plain.detect(picture.view)));
  CHECK(same_bits(expected, detector.detect(picture.view)));
  CHECK(same_bits(plain.detect(larger.view), detector.detect(larger.view)));
  CHECK(machine.violation() == "");
}

TEST_CASE("ours opens no library", "[algos]") {
  FakeMachine machine;
  const FakeLibraries libraries;
  // Files that nobody in this process has opened before.
  const std::string cudnn = libraries / "cudnn_of_its_own.so", cublaslt = libraries / "cublaslt_of_its_own.so";
  std::filesystem::copy_file(FRCNN_FAKE_CUDNN, cudnn);
  std::filesystem::copy_file(FRCNN_FAKE_CUBLASLT, cublaslt);
  const ScopedVariable first("FRCNN_CUDNN", cudnn), second("FRCNN_CUBLASLT", cublaslt);
  const auto is_open = [](const std::string& file) {
    void* const opened = dlopen(file.c_str(), RTLD_NOW | RTLD_NOLOAD);
    if (opened) dlclose(opened);
    return opened != nullptr;
  };
  const auto model = small_model();
  Detector detector(model, options());
  detector.detect(Picture(32, 24, 1).view);
  CHECK(detector.device().libraries().empty());
  CHECK(of_libraries(detector) == 0);
  CHECK_FALSE(is_open(cudnn));
  CHECK_FALSE(is_open(cublaslt));
  const Detector other(model, options_with(kLibraries));
  CHECK(is_open(cudnn));
  CHECK(is_open(cublaslt));
}

TEST_CASE("the choice of kernels is refused where it makes no sense", "[algos]") {
  const FakeMachine machine;
  const FakeLibraries libraries;
  const auto refused = [](const std::string& device, const GpuOptions& gpu) {
    return message_of([&] { make_device(device, Precision::fp32, 0, nullptr, gpu); }, ErrorCode::invalid_argument);
  };
  CHECK(contains(refused("cpu", kLibraries), "on a GPU only"));
  CHECK(make_device("cpu", Precision::fp32, 0, nullptr, gpu_with(Algo::automatic))->name() == "cpu");
  GpuOptions file;
  file.algo_cache = libraries / "times.json";
  for (const char* device : {"cpu", "cuda:0", "auto"}) {
    CHECK(contains(refused(device, gpu_with(Algo::cudnn, true)), "choice auto"));
    CHECK(contains(refused(device, gpu_with(Algo::ours, true)), "choice auto"));
    CHECK(contains(refused(device, file), "choice auto"));
  }
}
