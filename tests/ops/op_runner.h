// Runs one prepared kernel on given tensors and watches it: outputs, workspace and packed weights lie
// between guard zones, inputs must come back unchanged, and a second run on differently filled memory must
// give equal bytes.
//
// The case tables serve three devices. As they are, the kernels are the CPU's. With FRCNN_SIMT defined they
// are the CUDA ones, run by the emulator of tests/simt in its thread orders; with FRCNN_GPU, the CUDA ones on
// a GPU. Both define FRCNN_TEST_CUDA. Where an op is specified to the bit, the CPU's kernel runs beside them
// and must agree.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <limits>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "catch.h"
#include "graph/shapes.h"
#include "graph/tensor.h"
#include "kernels.h"
#include "ops/guarded_buffer.h"

#if defined(FRCNN_SIMT)
#include "tests/simt/engine.h"
#include "tests/simt/sanitizers.h"
#define FRCNN_TEST_CUDA 1
#elif defined(FRCNN_GPU)
#define FRCNN_TEST_CUDA 1
#endif

namespace frcnn::test {

// Every random tensor of the op tests depends on this number alone (and on a per-call salt).
inline unsigned base_seed() {
  const char* text = std::getenv("FRCNN_TEST_SEED");
  return text == nullptr ? 1u : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
}

#if defined(FRCNN_GPU)
inline constexpr const char* kProgram = "./frcnn_gpu_suite";
#elif defined(FRCNN_SIMT)
inline constexpr const char* kProgram = "./test_simt_ops";
#else
inline constexpr const char* kProgram = "./test_ops";
#endif

// What a failing test prints: the command that runs it again with the same numbers.
inline std::string reproduce(const std::string& what) {
  return what + "\n  reproduce: FRCNN_TEST_SEED=" + std::to_string(base_seed()) + " " + kProgram + " \"" +
         Catch::getResultCapture().getCurrentTestName() + "\"";
}
#define FRCNN_CASE(what) INFO(::frcnn::test::reproduce(what))

// A tensor that owns its bytes.
struct Tensor {
  TensorSpec spec;
  std::vector<std::byte> bytes;

  Tensor() = default;
  explicit Tensor(TensorSpec s) : spec(s), bytes(s.bytes()) {}
  template <class T>
  Tensor(Shape shape, DType dtype, const std::vector<T>& values) : Tensor(TensorSpec{shape, dtype}) {
    REQUIRE(values.size() * sizeof(T) == bytes.size());
    if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  }
  template <class T>
  std::span<const T> as() const {
    return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
  }
  template <class T>
  std::span<T> as() {
    return {reinterpret_cast<T*>(bytes.data()), bytes.size() / sizeof(T)};
  }
};

inline Tensor f32(Shape shape, const std::vector<float>& values) { return {shape, DType::f32, values}; }
inline Tensor i32(Shape shape, const std::vector<std::int32_t>& values) {
  return {shape, DType::i32, values};
}

// Uniform in [low, high); the same on every platform.
inline Tensor uniform(Shape shape, float low, float high, unsigned salt) {
  Tensor tensor({shape, DType::f32});
  std::mt19937 random(base_seed() * 7919u + salt);
  for (float& x : tensor.as<float>())
    x = low + (high - low) * static_cast<float>(random() >> 8) / 16777216.0f;
  return tensor;
}

// Whole numbers in [-range, range]: sums of their products are exact in float32 in any order.
inline Tensor integers(Shape shape, int range, unsigned salt) {
  Tensor tensor({shape, DType::f32});
  std::mt19937 random(base_seed() * 7919u + salt);
  for (float& x : tensor.as<float>()) {
    x = static_cast<float>(static_cast<int>(random() % static_cast<unsigned>(2 * range + 1)) - range);
  }
  return tensor;
}

using Buffers = std::vector<std::unique_ptr<GuardedBuffer>>;

// What `packing` makes of the weight, between guards of its own.
inline std::unique_ptr<GuardedBuffer> pack_weight(const WeightPacking& packing, const Tensor& weight,
                                                  unsigned char fill) {
  CHECK_FALSE(packing.layout.empty());
  Tensor published = weight;
  const TensorView view{published.bytes.data(), weight.spec.shape, weight.spec.dtype};
  auto packed = std::make_unique<GuardedBuffer>(packing.bytes, fill);
  packing.pack(view, packed->data());
  CHECK(packed->intact());
  // Equal layouts promise equal bytes, so what the packing leaves in its padding must not be what was there
  // before.
  GuardedBuffer again(packing.bytes, static_cast<unsigned char>(~fill));
  packing.pack(view, again.data());
  CHECK(std::memcmp(again.data(), packed->data(), packing.bytes) == 0);
  return packed;
}

// One run on fresh memory of `place` filled with `fill`. Packs the weights that the kernel wants packed, on
// the device, too, where it can. Outputs that a kernel adds to or updates begin as `states` says: one tensor
// for each output, without bytes where the output is only written.
inline std::vector<Tensor> run_once(const Prepared& prepared, const std::vector<Tensor>& in,
                                    const std::vector<TensorSpec>& out, unsigned char fill,
                                    Place place = Place::host, const std::vector<Tensor>& states = {}) {
  Buffers inputs, outputs, packed;
  std::vector<TensorView> in_views, out_views;
  for (const Tensor& tensor : in) {
    inputs.push_back(std::make_unique<GuardedBuffer>(tensor.bytes.size(), fill, place));
    inputs.back()->write(tensor.bytes.data());
    in_views.push_back({inputs.back()->data(), tensor.spec.shape, tensor.spec.dtype});
  }
  for (std::size_t i = 0; i < out.size(); ++i) {
    outputs.push_back(std::make_unique<GuardedBuffer>(out[i].bytes(), fill, place));
    out_views.push_back({outputs.back()->data(), out[i].shape, out[i].dtype});
    if (i >= states.size() || states[i].bytes.empty()) continue;
    REQUIRE(states[i].spec == out[i]);
    outputs.back()->write(states[i].bytes.data());
  }
  void* stream = nullptr;
#if defined(FRCNN_GPU)
  if (place == Place::device) stream = Gpu::only().stream();
#endif
  const auto finish = [&] {
#if defined(FRCNN_GPU)
    if (place == Place::device) Gpu::only().finish();
#endif
  };
  for (const WeightPacking& packing : prepared.packings) {
    const auto input = static_cast<std::size_t>(packing.input);
    const auto weight = pack_weight(packing, in.at(input), fill);
    packed.push_back(std::make_unique<GuardedBuffer>(packing.bytes, fill, place));
    packed.back()->write(weight->data());
    if (packing.pack_on_device) {
      GuardedBuffer on_device(packing.bytes, fill, place);
      packing.pack_on_device(in_views[input], on_device.data(), stream);
      finish();
      CHECK(on_device.intact());
      std::vector<std::byte> bytes(packing.bytes);
      on_device.read(bytes.data());
      CHECK(std::memcmp(bytes.data(), weight->data(), packing.bytes) == 0);
    }
    in_views[input].data = packed.back()->data();
  }
  GuardedBuffer workspace(prepared.workspace_bytes, fill, place);
  KernelArgs args;
  args.in = in_views;
  args.out = out_views;
  args.workspace = workspace.data();
  args.stream = stream;
  prepared.run(args);
  finish();
  CHECK(workspace.intact());
  for (std::size_t i = 0; i < in.size(); ++i) {
    CAPTURE(i);
    CHECK(inputs[i]->intact());
    Tensor after(in[i].spec);
    inputs[i]->read(after.bytes.data());
    CHECK((after.bytes == in[i].bytes));
  }
  std::vector<Tensor> result;
  for (std::size_t i = 0; i < out.size(); ++i) {
    CAPTURE(i);
    CHECK(outputs[i]->intact());
    Tensor tensor(out[i]);
    outputs[i]->read(tensor.bytes.data());
    result.push_back(std::move(tensor));
  }
  return result;
}

inline bool same_bytes(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i].bytes != b[i].bytes) return false;
  }
  return true;
}

// Equal bytes, or a NaN on both sides: its bits are the processor's own.
inline bool same_numbers(const Tensor& a, const Tensor& b) {
  if (a.spec.dtype != DType::f32) return a.bytes == b.bytes;
  for (std::size_t i = 0; i < a.as<float>().size(); ++i) {
    const float x = a.as<float>()[i], y = b.as<float>()[i];
    if (std::memcmp(&x, &y, sizeof x) != 0 && !(std::isnan(x) && std::isnan(y))) return false;
  }
  return true;
}

#if defined(FRCNN_TEST_CUDA)

// What kernels are prepared for: the GPU that there is, or none in particular.
inline cuda::Settings cuda_settings() {
  cuda::Settings settings;
#if defined(FRCNN_GPU)
  const auto attribute = [](cudaDeviceAttr which) {
    int value = 0;
    Gpu::check(cudaDeviceGetAttribute(&value, which, 0), "cudaDeviceGetAttribute");
    return value;
  };
  settings.multiprocessors = attribute(cudaDevAttrMultiProcessorCount);
  settings.shared_per_block = static_cast<std::size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
  settings.shared_per_multiprocessor =
      static_cast<std::size_t>(attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor));
#endif
  return settings;
}

// Whether an op's results are specified operation by operation, so that both devices give the same bits:
// never those of the products, whose sums the libraries order, nor those of an LRN whose power is the
// library's.
template <class O>
inline constexpr bool is_product =
    std::is_same_v<O, Conv2d> || std::is_same_v<O, Conv2dBackwardData> ||
    std::is_same_v<O, Conv2dBackwardWeight> || std::is_same_v<O, Linear> ||
    std::is_same_v<O, LinearBackwardData> || std::is_same_v<O, LinearBackwardWeight>;
template <class O>
bool same_on_all_devices(const O& op) {
  if constexpr (std::is_same_v<O, Lrn>) return op.beta == 0.75f;
  if constexpr (std::is_same_v<O, LrnBackward>) return op.lrn.beta == 0.75f;
  return true;
}

#if defined(FRCNN_SIMT)
inline constexpr std::size_t kOrders = std::size(simt::kSchedules);
inline constexpr bool kRaceCheck = simt::kRaceCheck, kAddressCheck = simt::kAddressCheck;
#else
inline constexpr std::size_t kOrders = 2;  // nobody chooses them
inline constexpr bool kRaceCheck = false, kAddressCheck = false;
#endif

// Runs `count` thread orders from number `first` on, each on differently filled memory; all must give the
// same bytes. With FRCNN_SIMT_EVERY_ORDER in the environment all orders; ThreadSanitizer sees a race in any
// order, so one is enough there. On a GPU: at least two runs.
inline std::vector<Tensor> run_orders(const Prepared& prepared, const std::vector<Tensor>& in,
                                      const std::vector<TensorSpec>& out, std::size_t first,
                                      std::size_t count, const std::vector<Tensor>& states = {}) {
  std::vector<Tensor> result;
#if defined(FRCNN_GPU)
  count = std::max<std::size_t>(count, 2);
#else
  if (std::getenv("FRCNN_SIMT_EVERY_ORDER")) count = kOrders;
#endif
  for (std::size_t i = 0; i < (kRaceCheck ? 1 : count); ++i) {
#if defined(FRCNN_SIMT)
    simt::Settings settings = simt::settings();
    settings.schedule = simt::kSchedules[(first + i) % kOrders];
    const simt::ScopedSettings during(settings);
#endif
    const std::vector<Tensor> got =
        run_once(prepared, in, out, i % 2 == 0 ? 0xFF : 0x3C, Place::device, states);  // all ones are a NaN
    if (i == 0) result = got;
    CAPTURE(first + i);
    CHECK(same_bytes(got, result));
  }
  return result;
}

template <class O>
std::vector<Tensor> run_in_orders(const O& op, const std::vector<Tensor>& in,
                                  const std::vector<TensorSpec>& out, std::size_t first, std::size_t count,
                                  const std::vector<Tensor>& states = {}) {
  std::vector<TensorSpec> in_specs;
  bool narrow = false;
  for (const Tensor& tensor : in) in_specs.push_back(tensor.spec);
  for (const TensorSpec& spec : out) narrow = narrow || spec.dtype == DType::f16 || spec.dtype == DType::bf16;
  const KernelSpec spec{in_specs, out};
  const Prepared prepared = cuda::prepare(op, spec, cuda_settings());
  CHECK_FALSE(prepared.implementation.empty());
  std::vector<Tensor> result = run_orders(prepared, in, out, first, count, states);
  if constexpr (!is_product<O>) {
    if (same_on_all_devices(op) && !narrow) {
      const std::vector<Tensor> cpu =
          run_once(cpu::prepare(op, spec, cpu::Settings{}), in, out, 0xFF, Place::host, states);
      for (std::size_t i = 0; i < out.size(); ++i) {
        INFO("output " << i << " compared with the CPU's");
        CHECK(same_numbers(result[i], cpu[i]));
      }
    }
  }
  return result;
}

// The outputs of `op` for `in`; `out` says what they are. `order` (from 1) takes the place of a number of
// threads.
template <class O>
std::vector<Tensor> run_op(const O& op, const std::vector<Tensor>& in, const std::vector<TensorSpec>& out,
                           int order = 1, const std::vector<Tensor>& states = {}) {
  return run_in_orders(op, in, out, static_cast<std::size_t>(order - 1), 2, states);
}

#else

// The outputs of `op` for `in`; `out` says what they are.
template <class O>
std::vector<Tensor> run_op(const O& op, const std::vector<Tensor>& in, const std::vector<TensorSpec>& out,
                           int threads = 1, const std::vector<Tensor>& states = {}) {
  std::vector<TensorSpec> in_specs;
  for (const Tensor& tensor : in) in_specs.push_back(tensor.spec);
  cpu::Settings settings;
  settings.threads = threads;
  const Prepared prepared = cpu::prepare(op, KernelSpec{in_specs, out}, settings);
  CHECK_FALSE(prepared.implementation.empty());
  std::vector<Tensor> first = run_once(prepared, in, out, 0xFF, Place::host, states);  // all ones are a NaN
  const std::vector<Tensor> second = run_once(prepared, in, out, 0x3C, Place::host, states);
  CHECK(same_bytes(first, second));
  return first;
}

#endif

// The same with the outputs that shape inference gives.
template <class O>
std::vector<Tensor> run_op(const O& op, const std::vector<Tensor>& in, int threads = 1,
                           const std::vector<Tensor>& states = {}) {
  std::vector<TensorSpec> in_specs;
  for (const Tensor& tensor : in) in_specs.push_back(tensor.spec);
  return run_op(op, in, infer(op, in_specs, "test"), threads, states);
}

// Of kernels that promise it: the same bytes with one and with several threads; on the emulator, in every
// order.
template <class O>
std::vector<Tensor> run_op_any_threads(const O& op, const std::vector<Tensor>& in,
                                       const std::vector<Tensor>& states = {}) {
#if defined(FRCNN_TEST_CUDA)
  std::vector<TensorSpec> in_specs;
  for (const Tensor& tensor : in) in_specs.push_back(tensor.spec);
  return run_in_orders(op, in, infer(op, in_specs, "test"), 0, kOrders, states);
#else
  std::vector<Tensor> one = run_op(op, in, 1, states);
  CHECK(same_bytes(one, run_op(op, in, 2, states)));
  CHECK(same_bytes(one, run_op(op, in, 5, states)));
  return one;
#endif
}

// Work of a matrix product as the CUDA kernel does it: in tiles of at least 64 by 64.
inline double tiled_work(std::int64_t rows, std::int64_t columns, std::int64_t k) {
  const auto up = [](std::int64_t n) { return static_cast<double>((n + 63) / 64 * 64); };
  return up(rows) * up(columns) * static_cast<double>(k);
}

// The cases of a table that this device runs: on the CPU all. What would keep the emulator busy for long it
// leaves out, and says so in one line; `work` of a case is about its number of multiplications, comparisons
// or loads, those of a tile's idle threads included. A table of which nothing is left fails.
template <class Cases, class Work, class Text>
auto affordable(const Cases& cases, [[maybe_unused]] const Work& work, [[maybe_unused]] const Text& text) {
  std::vector<std::decay_t<decltype(*std::begin(cases))>> kept(std::begin(cases), std::end(cases));
#if defined(FRCNN_SIMT)
  constexpr double limit = kRaceCheck ? 3e5 : kAddressCheck ? 6e6 : 2e7;
  const std::size_t all = kept.size();
  std::string left_out;
  std::erase_if(kept, [&](const auto& c) {
    if (work(c) <= limit) return false;
    left_out += (left_out.empty() ? "" : "; ") + text(c);
    return true;
  });
  if (kept.size() < all)
    WARN("SKIPPED, too large for the emulator: " << all - kept.size() << " of " << all
                                                 << " cases: " << left_out);
  REQUIRE_FALSE(kept.empty());
#endif
  return kept;
}

// Largest absolute difference; infinity where one has a NaN.
template <class A, class B>
double max_error(const A& got, const B& expected) {
  REQUIRE(got.size() == expected.size());
  double worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double d = std::abs(static_cast<double>(got[i]) - static_cast<double>(expected[i]));
    if (std::isnan(d)) return std::numeric_limits<double>::infinity();
    worst = d > worst ? d : worst;
  }
  return worst;
}

// The tolerance rule: the error is at most twice that of a plain implementation in the same precision. Errors
// are root mean squares over about a thousand numbers or more (small outputs are drawn rounds_for() times),
// because the largest of a few scatters by more than a factor of two between equally good implementations.
// One wrong number among them shows in the mean, and the largest error is held as well, at twice the scatter.
class ErrorTally {
 public:
  template <class Got, class Plain, class Exact>
  void add(const Got& got, const Plain& plain, const Exact& exact) {
    largest_error_ = std::max(largest_error_, max_error(got, exact));
    largest_plain_ = std::max(largest_plain_, max_error(plain, exact));
    for (std::size_t i = 0; i < exact.size(); ++i) {
      square_ += std::pow(static_cast<double>(got[i]) - exact[i], 2);
      square_plain_ += std::pow(static_cast<double>(plain[i]) - exact[i], 2);
      largest_ = std::max(largest_, std::abs(exact[i]));
    }
    count_ += exact.size();
  }
  void check() const {
#if defined(FRCNN_TEST_CUDA)
    if (kRaceCheck && count_ < 200) return;  // that build draws too few numbers to judge; the others do
#endif
    if (count_ == 0) return;
    const double n = static_cast<double>(count_), mean = std::sqrt(square_ / n),
                 plain = std::sqrt(square_plain_ / n);
    INFO("rms error " << mean << ", of plain loops " << plain << "; largest " << largest_error_
                      << ", of plain loops " << largest_plain_ << "; " << count_ << " numbers up to "
                      << largest_);
    CHECK(mean <= 2 * plain);
    CHECK(largest_error_ <=
          4 * std::max(largest_plain_, largest_ * std::numeric_limits<float>::epsilon() / 2));
  }

 private:
  double square_ = 0, square_plain_ = 0, largest_error_ = 0, largest_plain_ = 0, largest_ = 0;
  std::size_t count_ = 0;
};

inline unsigned rounds_for(const Shape& out) {
#if defined(FRCNN_SIMT)
  constexpr std::int64_t most = kRaceCheck ? 1 : 30;
#else
  constexpr std::int64_t most = 500;
#endif
  return static_cast<unsigned>(
      std::clamp<std::int64_t>(1000 / std::max<std::int64_t>(out.elements(), 1), 1, most));
}

// One draw.
template <class Got, class Plain, class Exact>
void check_error(const Got& got, const Plain& plain, const Exact& exact) {
  ErrorTally tally;
  tally.add(got, plain, exact);
  tally.check();
}

}  // namespace frcnn::test
