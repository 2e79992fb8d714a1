// ReluBackward, Add, InputUnits and Dropout: each element for itself.
#include <limits>
#include <vector>

#include "central_differences.h"
#include "op_runner.h"
#include "philox.h"
#include "reference/relu.h"

using namespace frcnn;
using namespace frcnn::test;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

const Shape shapes[] = {{1}, {3, 7}, {1, 1, 1, 1}, {2, 5, 7, 17}, {0, 4}, {1, 9, 11, 64}, {1031}};

Tensor random_key(std::int32_t seed, std::int32_t step, std::int32_t image) {
  return i32({4}, {seed, 7, step, image});
}

// Which elements a dropout layer keeps.
std::vector<bool> kept(const Dropout& op, std::int64_t n, const Tensor& key) {
  const Tensor ones = f32({n}, std::vector<float>(static_cast<std::size_t>(n), 1.0f));
  std::vector<bool> mask;
  const std::vector<Tensor> got = run_op_any_threads(op, {ones, key});
  for (const float v : got[0].as<float>()) {
    CHECK((v == 0 || v == op.scale));
    mask.push_back(v != 0);
  }
  return mask;
}

}  // namespace

TEST_CASE("relu_backward: exact", "[relu]") {
  for (const Shape& shape : shapes) {
    FRCNN_CASE("relu_backward " + to_string(shape));
    const Tensor src = uniform(shape, -1, 1, 1), d_dst = uniform(shape, -1, 1, 2);
    const Tensor dst = run_op(Relu{}, {src})[0];
    std::vector<float> expected;
    for (std::size_t i = 0; i < src.as<float>().size(); ++i)
      expected.push_back(src.as<float>()[i] > 0 ? d_dst.as<float>()[i] : 0.0f);
    CHECK(max_error(run_op_any_threads(ReluBackward{}, {d_dst, dst})[0].as<float>(), expected) == 0);
  }
}

TEST_CASE("relu_backward: agrees with differences of the forward pass", "[relu]") {
  const Tensor src = distinct({2, 33}, 1), d_dst = integers({2, 33}, 9, 2);
  // The one value at the corner aside.
  const Tensor dst = run_op(Relu{}, {src})[0];
  const auto exact = central_differences(src.as<float>(), d_dst.as<float>(),
                                         [](std::span<const float> x) { return reference::relu<double>(x); });
  const std::vector<Tensor> got = run_op(ReluBackward{}, {d_dst, dst});
  for (std::size_t i = 0; i < exact.size(); ++i)
    if (src.as<float>()[i] != 0)
      CHECK(static_cast<double>(got[0].as<float>()[i]) == Approx(exact[i]).margin(1e-9));
}

TEST_CASE("relu_backward: zeros, infinities and NaN", "[relu]") {
  const Tensor dst = f32({6}, {0.0f, -0.0f, infinity, 1e-45f, nan_value, 1.0f});
  const auto got =
      run_op_any_threads(ReluBackward{}, {f32({6}, {1, nan_value, 2, 3, infinity, -infinity}), dst});
  CHECK(max_error(std::vector<float>(got[0].as<float>().begin(), got[0].as<float>().begin() + 5),
                  std::vector<float>{0, 0, 2, 3, 0}) == 0);
  CHECK(got[0].as<float>()[5] == -infinity);
  const auto bad = run_op_any_threads(ReluBackward{}, {f32({1}, {nan_value}), f32({1}, {1.0f})});
  CHECK(std::isnan(bad[0].as<float>()[0]));
}

TEST_CASE("add: exact", "[add]") {
  for (const Shape& shape : shapes) {
    FRCNN_CASE("add " + to_string(shape));
    const Tensor a = uniform(shape, -1, 1, 1), b = uniform(shape, -100, 100, 2);
    std::vector<float> expected;
    for (std::size_t i = 0; i < a.as<float>().size(); ++i)
      expected.push_back(a.as<float>()[i] + b.as<float>()[i]);
    CHECK(max_error(run_op_any_threads(Add{}, {a, b})[0].as<float>(), expected) == 0);
  }
  const auto got =
      run_op_any_threads(Add{}, {f32({3}, {infinity, nan_value, 1}), f32({3}, {-infinity, 1, infinity})});
  CHECK(std::isnan(got[0].as<float>()[0]));
  CHECK(std::isnan(got[0].as<float>()[1]));
  CHECK(got[0].as<float>()[2] == infinity);
}

TEST_CASE("input_units: every pixel in the layer's units, the border as a pixel of zeros", "[input_units]") {
  for (const Shape& s : {Shape{1, 1, 1, 3}, Shape{2, 4, 7, 3}, Shape{1, 13, 1, 3}, Shape{3, 1, 9, 3}}) {
    for (const int pad : {0, 1, 3}) {
      const InputUnits op{pad, {0.5f, -2.25f, 3.125f}, 1 / 64.0f};
      FRCNN_CASE("input_units " + to_string(s) + ", pad " + std::to_string(pad));
      const Tensor src = uniform(s, -128, 128, 1);
      std::vector<float> expected;
      for (std::int64_t n = 0; n < s[0]; ++n)
        for (std::int64_t y = -pad; y < s[1] + pad; ++y)
          for (std::int64_t x = -pad; x < s[2] + pad; ++x)
            for (std::int64_t c = 0; c < 3; ++c) {
              const bool inside = y >= 0 && y < s[1] && x >= 0 && x < s[2];
              const float v =
                  inside ? src.as<float>()[static_cast<std::size_t>(((n * s[1] + y) * s[2] + x) * 3 + c)]
                         : 0.0f;
              expected.push_back((v - op.offset[static_cast<std::size_t>(c)]) * op.factor);
            }
      const std::vector<Tensor> got = run_op_any_threads(op, {src});
      CHECK(got[0].spec.shape == Shape{s[0], s[1] + 2 * pad, s[2] + 2 * pad, 3});
      CHECK(max_error(got[0].as<float>(), expected) == 0);
    }
  }
}

TEST_CASE("dropout: the word of an element says whether it falls", "[dropout]") {
  for (const Shape& shape : shapes) {
    FRCNN_CASE("dropout " + to_string(shape));
    const Dropout op{0.3f, 1 / 0.7f, 2};
    const Tensor src = uniform(shape, 1, 2, 1), key = random_key(5, 6, 8);
    std::vector<float> expected;
    for (std::size_t i = 0; i < src.as<float>().size(); ++i) {
      const PhiloxCounter words =
          philox({{6, 8, static_cast<std::uint32_t>(i / 4), 18}}, std::uint64_t{7} << 32 | 5);
      expected.push_back(words.word[i % 4] / 4294967296.0 < static_cast<double>(op.ratio)
                             ? 0.0f
                             : src.as<float>()[i] * op.scale);
    }
    CHECK(max_error(run_op_any_threads(op, {src, key})[0].as<float>(), expected) == 0);
  }
}

TEST_CASE("dropout: as many fall as asked, and other words for other keys, steps, images and layers",
          "[dropout]") {
  constexpr std::int64_t n = 20000;
  const auto count = [](const std::vector<bool>& mask) {
    return static_cast<double>(std::count(mask.begin(), mask.end(), true));
  };
  const std::vector<bool> first = kept({0.5f, 2, 0}, n, random_key(1, 1, 1));
  CHECK(count(first) == Approx(n / 2).margin(4 * std::sqrt(n / 4.0)));
  CHECK(count(kept({0.1f, 1, 0}, n, random_key(1, 1, 1))) == Approx(0.9 * n).margin(4 * std::sqrt(0.09 * n)));
  CHECK(count(kept({0.0f, 1, 0}, n, random_key(1, 1, 1))) == n);
  CHECK(kept({0.5f, 2, 0}, n, random_key(1, 1, 1)) == first);
  for (const auto& [op, key] : {std::pair{Dropout{0.5f, 2, 1}, random_key(1, 1, 1)},
                                std::pair{Dropout{0.5f, 2, 0}, random_key(2, 1, 1)},
                                std::pair{Dropout{0.5f, 2, 0}, random_key(1, 2, 1)},
                                std::pair{Dropout{0.5f, 2, 0}, random_key(1, 1, 2)}}) {
    const std::vector<bool> other = kept(op, n, key);
    std::int64_t same = 0;
    for (std::size_t i = 0; i < other.size(); ++i) same += other[i] == first[i];
    CHECK(static_cast<double>(same) == Approx(n / 2).margin(4 * std::sqrt(n / 4.0)));
  }
}

TEST_CASE("dropout: what falls is zero, whatever it was", "[dropout]") {
  constexpr std::int64_t n = 64;
  const Dropout op{0.5f, 2, 0};
  const Tensor key = random_key(1, 1, 1);
  const std::vector<bool> mask = kept(op, n, key);
  const auto got = run_op_any_threads(op, {f32({n}, std::vector<float>(n, nan_value)), key});
  for (std::size_t i = 0; i < n; ++i) CHECK(std::isnan(got[0].as<float>()[i]) == mask[i]);
}
