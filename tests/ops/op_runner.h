// Runs one prepared CPU kernel on given tensors and watches it: outputs, workspace and packed weights lie
// between guard zones, inputs must come back unchanged, and a second run on differently filled memory must
// give equal bytes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "catch.h"
#include "graph/shapes.h"
#include "graph/tensor.h"
#include "kernels.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FRCNN_TEST_ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define FRCNN_TEST_ASAN 1
#endif
#ifdef FRCNN_TEST_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace frcnn::test {

// Every random tensor of the op tests depends on this number alone (and on a per-call salt).
inline unsigned base_seed() {
  const char* text = std::getenv("FRCNN_TEST_SEED");
  return text == nullptr ? 1u : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
}

// What a failing test prints: the command that runs it again with the same numbers.
inline std::string reproduce(const std::string& what) {
  return what + "\n  reproduce: FRCNN_TEST_SEED=" + std::to_string(base_seed()) + " ./test_ops \"" +
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

// `bytes` at a 256-byte boundary with guards on both sides, all filled. Under ASan the guards are poisoned,
// which also catches reads; generated machine code is not instrumented, so the pattern is checked too.
class GuardedBuffer {
 public:
  GuardedBuffer(std::size_t bytes, unsigned char fill)
      : bytes_(bytes), storage_(new unsigned char[bytes + 2 * zone + 256]) {
    const auto address = reinterpret_cast<std::uintptr_t>(storage_.get()) + zone;
    data_ = storage_.get() + zone + (256 - address % 256) % 256;
    std::memset(data_ - zone, pattern, zone);
    std::memset(data_, fill, bytes);
    std::memset(data_ + bytes, pattern, zone);
    poison(true);
  }
  ~GuardedBuffer() { poison(false); }
  GuardedBuffer(const GuardedBuffer&) = delete;
  GuardedBuffer& operator=(const GuardedBuffer&) = delete;

  void* data() const { return data_; }
  std::size_t size() const { return bytes_; }
  bool intact() {
    poison(false);
    bool same = true;
    for (std::size_t i = 0; i < zone; ++i) {
      same = same && data_[static_cast<std::ptrdiff_t>(i) - static_cast<std::ptrdiff_t>(zone)] == pattern;
      same = same && data_[bytes_ + i] == pattern;
    }
    poison(true);
    return same;
  }

 private:
  static constexpr std::size_t zone = 4096;
  static constexpr unsigned char pattern = 0xA5;
  void poison([[maybe_unused]] bool on) {
#ifdef FRCNN_TEST_ASAN
    if (on) {
      __asan_poison_memory_region(data_ - zone, zone);
      __asan_poison_memory_region(data_ + bytes_, zone);
    } else {
      __asan_unpoison_memory_region(data_ - zone, zone + bytes_ + zone);
    }
#endif
  }
  std::size_t bytes_;
  std::unique_ptr<unsigned char[]> storage_;
  unsigned char* data_ = nullptr;
};

using Buffers = std::vector<std::unique_ptr<GuardedBuffer>>;

// One run on fresh memory filled with `fill`. Packs the weights that the kernel wants packed.
inline std::vector<Tensor> run_once(const Prepared& prepared, const std::vector<Tensor>& in,
                                    const std::vector<TensorSpec>& out, unsigned char fill) {
  Buffers inputs, outputs;
  std::vector<TensorView> in_views, out_views;
  for (const Tensor& tensor : in) {
    inputs.push_back(std::make_unique<GuardedBuffer>(tensor.bytes.size(), fill));
    if (!tensor.bytes.empty()) std::memcpy(inputs.back()->data(), tensor.bytes.data(), tensor.bytes.size());
    in_views.push_back({inputs.back()->data(), tensor.spec.shape, tensor.spec.dtype});
  }
  for (const TensorSpec& spec : out) {
    outputs.push_back(std::make_unique<GuardedBuffer>(spec.bytes(), fill));
    out_views.push_back({outputs.back()->data(), spec.shape, spec.dtype});
  }
  Buffers packed;
  for (const WeightPacking& packing : prepared.packings) {
    CHECK_FALSE(packing.layout.empty());
    packed.push_back(std::make_unique<GuardedBuffer>(packing.bytes, fill));
    TensorView& view = in_views.at(static_cast<std::size_t>(packing.input));
    packing.pack(view, packed.back()->data());
    CHECK(packed.back()->intact());
    // Equal layouts promise equal bytes, so what the packing leaves in its padding must not be what was there
    // before.
    GuardedBuffer again(packing.bytes, static_cast<unsigned char>(~fill));
    packing.pack(view, again.data());
    CHECK(std::memcmp(again.data(), packed.back()->data(), packing.bytes) == 0);
    view.data = packed.back()->data();
  }
  GuardedBuffer workspace(prepared.workspace_bytes, fill);
  KernelArgs args;
  args.in = in_views;
  args.out = out_views;
  args.workspace = workspace.data();
  prepared.run(args);
  CHECK(workspace.intact());
  for (std::size_t i = 0; i < in.size(); ++i) {
    CAPTURE(i);
    CHECK(inputs[i]->intact());
    CHECK((in[i].bytes.empty() ||
           std::memcmp(inputs[i]->data(), in[i].bytes.data(), in[i].bytes.size()) == 0));
  }
  std::vector<Tensor> result;
  for (std::size_t i = 0; i < out.size(); ++i) {
    CAPTURE(i);
    CHECK(outputs[i]->intact());
    Tensor tensor(out[i]);
    if (!tensor.bytes.empty()) std::memcpy(tensor.bytes.data(), outputs[i]->data(), tensor.bytes.size());
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

// The outputs of `op` for `in`; `out` says what they are.
template <class O>
std::vector<Tensor> run_op(const O& op, const std::vector<Tensor>& in, const std::vector<TensorSpec>& out,
                           int threads = 1) {
  std::vector<TensorSpec> in_specs;
  for (const Tensor& tensor : in) in_specs.push_back(tensor.spec);
  cpu::Settings settings;
  settings.threads = threads;
  const Prepared prepared = cpu::prepare(op, KernelSpec{in_specs, out}, settings);
  CHECK_FALSE(prepared.implementation.empty());
  std::vector<Tensor> first = run_once(prepared, in, out, 0xFF);  // all ones are a NaN
  const std::vector<Tensor> second = run_once(prepared, in, out, 0x3C);
  CHECK(same_bytes(first, second));
  return first;
}

// The same with the outputs that shape inference gives.
template <class O>
std::vector<Tensor> run_op(const O& op, const std::vector<Tensor>& in, int threads = 1) {
  std::vector<TensorSpec> in_specs;
  for (const Tensor& tensor : in) in_specs.push_back(tensor.spec);
  return run_op(op, in, infer(op, in_specs, "test"), threads);
}

// Of kernels that promise it: the same bytes with one and with several threads.
template <class O>
std::vector<Tensor> run_op_any_threads(const O& op, const std::vector<Tensor>& in) {
  std::vector<Tensor> one = run_op(op, in, 1);
  CHECK(same_bytes(one, run_op(op, in, 2)));
  CHECK(same_bytes(one, run_op(op, in, 5)));
  return one;
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
  return static_cast<unsigned>(
      std::clamp<std::int64_t>(1000 / std::max<std::int64_t>(out.elements(), 1), 1, 500));
}

// One draw.
template <class Got, class Plain, class Exact>
void check_error(const Got& got, const Plain& plain, const Exact& exact) {
  ErrorTally tally;
  tally.add(got, plain, exact);
  tally.check();
}

}  // namespace frcnn::test
