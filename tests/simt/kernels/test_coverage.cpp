// No kernel without an emulated run: every __global__ function of kernels/cuda, in every instance that the
// library makes of it, is launched here on a small problem whose result is checked.
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "gemm_case.h"
#include "ops/source_images.h"
#include "weight_gradient_case.h"

using namespace frcnn;
using namespace frcnn::test;

namespace {

#if defined(FRCNN_SIMT)

// Name -> the template parameters in front of it, empty for a plain function.
std::map<std::string, std::string> kernels_in_sources() {
  std::map<std::string, std::string> kernels;
  // The parameter list is the only parenthesis after a name and not after an attribute.
  const std::regex global(
      R"((?:template\s*<((?:[^<>]|<[^<>]*>)*)>\s*)?__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\()");
  for (const auto& entry : std::filesystem::directory_iterator(FRCNN_SOURCE_DIR "/kernels/cuda")) {
    const std::string extension = entry.path().extension().string();
    if (extension != ".cu" && extension != ".h" && extension != ".cuh") continue;
    std::stringstream text;
    text << std::ifstream(entry.path()).rdbuf();
    const std::string source = std::regex_replace(text.str(), std::regex("//[^\n]*"), "");
    std::size_t found = 0, written = 0;
    for (std::sregex_iterator at(source.begin(), source.end(), global), end; at != end; ++at, ++found) {
      INFO(entry.path().string() << ": " << (*at)[2]);
      CHECK(kernels.emplace((*at)[2], (*at)[1]).second);  // launches are told apart by name
    }
    for (std::size_t at = source.find("__global__"); at != std::string::npos;
         at = source.find("__global__", at + 1))
      ++written;
    INFO(entry.path().string());
    CHECK(found == written);
  }
  return kernels;
}

// How many instances the library makes of a kernel with these template parameters.
std::size_t instances(const std::string& parameters) {
  constexpr std::size_t storages = 3, packs = 3, f32_arithmetics = 3;
  if (parameters.empty()) return 1;
  if (parameters == "class T") return storages;
  if (parameters == "class T, int lanes") return storages * packs;
  if (parameters == "int lanes") return packs;
  if (parameters == "class Math, int rows, int columns") return f32_arithmetics * cuda::gemm_tiles.size();
  if (parameters == "class T, PixelFormat format") return storages * 3;
  if (parameters.find("class Math, int rows, int columns") == 0)
    return arithmetics.size() * cuda::gemm_tiles.size() * 2;
  if (parameters == "class Math, int columns") return arithmetics.size() * cuda::first_conv_columns.size();
  FAIL("a kernel's template parameters <" << parameters << ">: say here how many instances there are");
  return 0;
}

void check_launched() {
  std::map<std::string, std::set<std::string>> launched;  // instances by name
  for (const auto& [name, count] : simt::launched_kernels()) {
    const std::size_t end = name.find("_kernel") + std::string("_kernel").size();
    const std::size_t begin = name.rfind(':', end) + 1;
    launched[name.substr(begin, end - begin)].insert(name);
  }
  const auto kernels = kernels_in_sources();
  CHECK(kernels.size() >= 20);
  std::size_t total = 0;
  for (const auto& [name, parameters] : kernels) {
    std::string seen;
    for (const std::string& instance : launched[name]) seen += "\n  " + instance;
    INFO(name << "<" << parameters << "> was launched as:" << seen);
    CHECK(launched[name].size() == instances(parameters));
    total += launched[name].size();
  }
  WARN(kernels.size() << " kernels in the sources, " << total << " instances launched");
}

#endif

void run_maps(DType dtype) {
  const Tensor rois = f32({2, 5}, {0, 5, 8, 70, 60, 1, 0, 0, 20, 90});
  for (const std::int64_t channels : {8, 6, 5}) {  // packs of 16 bytes, of two, of one
    const Tensor map = uniform({2, 4, 5, channels}, -2, 2, 1);
    const Tensor rows = uniform({3, channels}, -2, 2, 2);  // elementwise ops take packs of all they have
    check_stored(Relu{}, {rows}, dtype);
    check_stored(Scale{0.5f}, {rows}, dtype);
    check_stored(MaxPool{}, {map}, dtype);
    check_stored(RoiPool{2, 2, 0.0625f}, {map, rois}, dtype);
    check_stored(RoiAlign{2, 2, 0.0625f, 0, false}, {map, rois}, dtype);
  }
  const Tensor map = uniform({1, 3, 4, 5}, -2, 2, 1);
  check_stored(Lrn{LrnRegion::within_channel, 3, 0.1f, 0.75f, 1.0f}, {map}, dtype);
  check_stored(Lrn{LrnRegion::across_channels, 3, 0.1f, 0.75f, 1.0f}, {map}, dtype);
  const Sources sources = sources_of(
      {{3, 4, 2.0}, {4, 6, 2.0, PixelFormat::nv12}, {3, 4, 1.5, PixelFormat::rgb}}, 1);
  const Preprocess op{{1, 2, 3}, sources.height, sources.width};
  const std::vector<Tensor> in = sources.inputs();
  const std::vector<TensorSpec> specs{in[0].spec, in[1].spec};
  std::vector<TensorSpec> out = infer(op, specs, "test");
  const Tensor exact = run_once(cpu::prepare(op, KernelSpec{specs, out}, cpu::Settings{}), in, out, 0xFF)[0];
  out[0].dtype = dtype;
  CHECK(same_values(run_op(op, in, out)[0], stored_as(exact, dtype)));
}

// f32 and i32 only: run_op compares them with the CPU.
void run_boxes() {
  run_op(Softmax{3}, {uniform({1, 2, 2, 6}, -1, 1, 1)});
  DecodeProposals decode;
  decode.base_anchors = {{0, 0, 30, 30}, {-8, -20, 40, 50}};
  run_op(decode,
         {uniform({1, 3, 4, 4}, 0, 1, 2), uniform({1, 3, 4, 8}, -0.5f, 0.5f, 3), f32({1, 3}, {48, 64, 1})});
  run_op(TopK{5}, {uniform({1, 9, 4}, 0, 50, 4), uniform({1, 9}, 0, 1, 5)});
  run_op(Nms{0.5f, Suppress::above, 4},
         {uniform({1, 6, 4}, 0, 50, 6), uniform({1, 6}, 0, 1, 7), i32({1}, {6})});
  run_op(DecodeBoxes{}, {uniform({3, 5}, 0, 50, 8), uniform({3, 8}, -1, 1, 9), f32({1, 3}, {60, 80, 2}),
                         f32({1, 2}, {30, 40})});
  run_op(SelectDetections{}, {uniform({3, 3}, 0, 1, 10), uniform({3, 12}, 0, 30, 11), i32({1}, {3})});
}

// f32, i32 and u8 only, and the CPU's bits.
void run_training() {
  const Tensor rois = f32({2, 5}, {0, 5, 8, 70, 60, 1, 0, 0, 20, 90}), key = i32({4}, {1, 2, 3, 4});
  for (const std::int64_t channels : {8, 6, 5}) {
    const Tensor a = uniform({3, channels}, -2, 2, 1), b = uniform({3, channels}, -2, 2, 2);
    run_op(Add{}, {a, b});
    run_op(ReluBackward{}, {a, b});
    const MaxPool pool{2, 2, 0, Rounding::ceil, true};
    const auto pooled = run_op(pool, {uniform({1, 4, 5, channels}, -2, 2, 3)});
    run_op(MaxPoolBackward{pool, 4, 5}, pooled);
  }
  const Tensor map = uniform({2, 4, 5, 3}, -2, 2, 4);
  run_op(InputUnits{1, {1, 2, 3}, 0.5f}, {map});
  run_op(Dropout{}, {map, key});
  run_op(LrnBackward{}, {map, uniform({2, 4, 5, 3}, -2, 2, 5)});
  const RoiPool pool{2, 2, 0.0625f, true};
  const auto pooled = run_op(pool, {map, rois});
  run_op(RoiPoolBackward{pool, 2, 4, 5}, {pooled[0], pooled[1], rois});
  run_op(RoiAlignBackward{{2, 2, 0.0625f, 0, false}, 2, 4, 5}, {pooled[0], rois});
  run_op(SoftmaxLoss{}, {uniform({3, 4}, -1, 1, 6), i32({3}, {0, -1, 2})});
  const Tensor four = uniform({2, 4}, 0, 1, 7);
  run_op(SmoothL1Loss{}, {four, uniform({2, 4}, 0, 1, 8), four, four});
  run_op(ClipGradients{1, 1}, {four, map});
  run_op(Sgd{}, {four, f32({1}, {1}), f32({2}, {0.1f, 0})}, 1, {four, four});
  AnchorTargets anchors;
  anchors.base_anchors = {{0, 0, 30, 30}, {-8, -8, 40, 50}};
  anchors.height = 4;
  anchors.width = 5;
  anchors.batch = 4;
  const Tensor truth = f32({1, 2, 5}, {3, 3, 30, 40, 1, 20, 10, 60, 60, 2});
  run_op(anchors, {truth, i32({1}, {2}), f32({1, 3}, {64, 80, 1}), key});
  RoiTargets targets;
  targets.batch = 4;
  run_op(targets, {uniform({6, 5}, 0, 60, 9), i32({1}, {6}), truth, i32({1}, {2}), key});
}

void run_weight_gradients() {
  const WeightGradientCase c{{1, 5, 8, 3}, {5, 3, 3, 3}, 1, 1};  // three steps: two splits
  for (const Arithmetic& a : arithmetics) {
    for (int tile = 0; a.stored == DType::f32 && tile < static_cast<int>(cuda::gemm_tiles.size()); ++tile) {
      INFO(a.name << ": " << text(c));
      check_weight_gradient(c, a, {tile, 2}, 0, 1);
    }
  }
}

void run_first_convs() {
  for (const Arithmetic& a : arithmetics) {
    for (int columns = 0; columns < static_cast<int>(cuda::first_conv_columns.size()); ++columns) {
      const GemmCase c{{1, 4, 18, 3}, {5, 3, 3, 3}, {1, 1, {true, 1.0f, columns == 1}}, a.stored};
      INFO(a.name << ": " << text(c));
      const cuda::FirstConvChoice choice{columns, 1};
      const Tensor src = integers(c.src, 3, 1), weight = integers(c.weight, 3, 2), bias = integers({5}, 9, 3);
      const Tensor got =
          run_gemm(c, prepare_gemm(c, a, {2, 1}, &choice), {stored_as(src, a.stored), weight, bias}, 0);
      CHECK(same_values(got, stored_as(stored_shape(c), plain_gemm<float>(c, src, weight, bias), a.stored)));
    }
  }
}

void run_gemms() {
  for (const Arithmetic& a : arithmetics) {
    for (int tile = 0; tile < static_cast<int>(cuda::gemm_tiles.size()); ++tile) {
      for (const std::int64_t channels : {8, 3}) {
        const GemmCase c{{1, 2, 3, channels}, {3, channels, 3, 3}, {1, 1, {}}, a.stored};
        INFO(a.name << ": " << text(c));
        const Tensor src = integers(c.src, 3, 1), weight = integers(c.weight, 3, 2),
                     bias = integers({3}, 9, 3);
        const Prepared prepared = prepare_gemm(c, a, {tile, 2});
        const Tensor got = run_gemm(c, prepared, {stored_as(src, a.stored), weight, bias}, 0);
        CHECK(
            same_values(got, stored_as(stored_shape(c), plain_gemm<float>(c, src, weight, bias), a.stored)));
      }
    }
  }
}

}  // namespace

// Small problems, so this is also what compute-sanitizer looks at on a GPU.
TEST_CASE("every instance of every kernel in the sources is run", "[coverage]") {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) run_maps(dtype);
  run_boxes();
  run_training();
  run_weight_gradients();
  run_first_convs();
  run_gemms();
#if defined(FRCNN_SIMT)
  check_launched();
#endif
}
