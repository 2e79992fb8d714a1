// The kernel for first layers: every instance, against the reference and against the implicit GEMM.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "gemm_case.h"

using namespace frcnn;
using namespace frcnn::test;
using cuda::first_conv_columns;
using cuda::FirstConvChoice;

namespace {

#if defined(FRCNN_SIMT)
constexpr bool kBrief = simt::kRaceCheck;  // toy sizes under ThreadSanitizer
#else
constexpr bool kBrief = false;
#endif

const Epilogue plain{}, relu{true, 0.5f}, pooled{true, 1.0f, true}, both{false, -2.0f, true};

// Every number of channels; rows that begin anywhere modulo 16 bytes; tiles that are full, over the edge, or
// one pixel; filters wider than the map; padding wider than the filter; several images.
const GemmCase cases[] = {
    {{1, 1, 1, 1}, {1, 1, 1, 1}, {1, 0, plain}},    {{1, 1, 1, 3}, {5, 3, 3, 3}, {1, 1, relu}},
    {{1, 9, 17, 3}, {33, 3, 3, 3}, {1, 1, pooled}}, {{2, 8, 16, 3}, {7, 3, 3, 3}, {1, 1, plain}},
    {{1, 21, 35, 3}, {8, 3, 7, 7}, {2, 3, relu}},   {{2, 15, 33, 3}, {9, 3, 7, 7}, {2, 3, both}},
    {{1, 31, 67, 3}, {6, 3, 11, 11}, {4, 2, relu}}, {{1, 6, 37, 1}, {4, 1, 5, 5}, {1, 2, pooled}},
    {{3, 5, 7, 1}, {3, 1, 3, 1}, {1, 4, plain}},    {{1, 10, 19, 2}, {65, 2, 3, 3}, {1, 1, relu}},
    {{2, 7, 5, 2}, {3, 2, 2, 2}, {2, 1, pooled}},   {{1, 11, 21, 4}, {34, 4, 3, 3}, {1, 1, pooled}},
    {{1, 50, 1, 4}, {3, 4, 3, 1}, {2, 0, plain}},   {{1, 13, 40, 3}, {4, 3, 1, 1}, {3, 0, relu}},
    {{1, 2, 3, 3}, {5, 3, 7, 7}, {1, 3, both}},
};

std::string text_of(const GemmCase& c, const Arithmetic& a, const FirstConvChoice& choice) {
  return std::string(a.name) + ", " +
         std::to_string(first_conv_columns[static_cast<std::size_t>(choice.columns)]) + " columns, " +
         std::to_string(choice.blocks) + " blocks\n  " + text(c);
}

template <class F>
void for_each_instance(const F& f) {
  for (const Arithmetic& a : arithmetics)
    for (int columns = 0; columns < static_cast<int>(first_conv_columns.size()); ++columns) f(a, columns);
}

Prepared prepare_conv(const GemmCase& c, const Arithmetic& a, const cuda::Settings& usual = {}) {
  const std::vector<TensorSpec> in{{c.src, a.stored}, {c.weight}, {{c.weight[0]}}},
      out{{stored_shape(c), c.dst}};
  cuda::Settings settings = usual;
  settings.precision = a.precision;
  return cuda::prepare(c.op, KernelSpec{in, out}, settings);
}

}  // namespace

TEST_CASE("first convolutions: every instance is exact on small integers", "[gemm]") {
  std::size_t turn = 0;
  for_each_instance([&](const Arithmetic& a, int columns) {
    for (GemmCase c : cases) {
      ++turn;
      if (kBrief && c.src.row() > 250) continue;
      c.dst = turn % 3 == 0 ? DType::f32 : a.stored;
      const FirstConvChoice choice{columns,
                                   1 + static_cast<int>(turn % 2)};  // blocks turn their patches over
      FRCNN_CASE(text_of(c, a, choice));
      const Tensor src = integers(c.src, 7, 1), weight = integers(c.weight, 3, 2),
                   bias = integers({c.weight[0]}, 50, 3);
      const Tensor got =
          run_gemm(c, prepare_gemm(c, a, {2, 1}, &choice), {stored_as(src, a.stored), weight, bias}, turn);
      CHECK(same_values(got, stored_as(stored_shape(c), plain_gemm<float>(c, src, weight, bias), c.dst)));
    }
  });
}

TEST_CASE("first convolutions: the same whatever the order of the threads", "[gemm]") {
  for (const Arithmetic& a : arithmetics) {
    const GemmCase c{{2, 9, 19, 3}, {33, 3, 3, 3}, {1, 1, pooled}, a.stored};
    const FirstConvChoice choice{0, 3};
    FRCNN_CASE(text_of(c, a, choice));
    const std::vector<Tensor> in{stored_as(uniform(c.src, -1, 1, 1), a.stored), uniform(c.weight, -1, 1, 2),
                                 uniform({33}, -1, 1, 3)};
    run_gemm(c, prepare_gemm(c, a, {2, 1}, &choice), in, 0, 4);
  }
}

// Both add the products in the order of k. What holds the implicit GEMM to its precision holds this too.
TEST_CASE("first convolutions: the bits of the implicit GEMM", "[gemm]") {
  for_each_instance([&](const Arithmetic& a, int columns) {
    for (GemmCase c : cases) {
      if (c.src.row() > 1000 || (kBrief && c.src.row() > 250)) continue;
      c.dst = a.stored;
      const FirstConvChoice choice{columns, 2};
      FRCNN_CASE(text_of(c, a, choice));
      const std::vector<Tensor> in{stored_as(uniform(c.src, -1, 1, 4), a.stored), uniform(c.weight, -1, 1, 5),
                                   uniform({c.weight[0]}, -1, 1, 6)};
      const Tensor expected = run_gemm(c, prepare_gemm(c, a, {2, 1}, nullptr, true), in, 0);
      CHECK((run_gemm(c, prepare_gemm(c, a, {2, 1}, &choice), in, 0).bytes == expected.bytes));
    }
  });
}

TEST_CASE("first convolutions: a NaN or an infinity shows where its pixel takes part, and nowhere else",
          "[gemm]") {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (const Arithmetic& a : arithmetics) {
    for (const float bad : {nan, inf}) {
      // The last pixel of a row, which lies in memory beside the first of the next one.
      const GemmCase c{{1, 5, 21, 3}, {4, 3, 3, 3}, {1, 1, {}}, a.stored};
      FRCNN_CASE(std::string(a.name) + "\n  " + text(c));
      Tensor src = uniform(c.src, 0.5f, 1, 1);
      src.as<float>()[(2 * 21 + 20) * 3 + 2] = bad;
      const std::vector<Tensor> in{stored_as(src, a.stored), uniform(c.weight, 0.5f, 1, 2),
                                   uniform({4}, 0, 1, 3)};
      const FirstConvChoice choice{0, 1};
      const Tensor got = widened(run_gemm(c, prepare_gemm(c, a, {2, 1}, &choice), in, 0));
      for (std::int64_t y = 0; y < 5; ++y)
        for (std::int64_t x = 0; x < 21; ++x)
          for (std::int64_t o = 0; o < 4; ++o) {
            CAPTURE(y, x, o);
            const float v = got.as<float>()[static_cast<std::size_t>((y * 21 + x) * 4 + o)];
            CHECK(std::isfinite(v) == !(y >= 1 && y <= 3 && x >= 19));
          }
    }
  }
}

TEST_CASE("conv2d takes the kernel for first layers where there are few channels", "[gemm]") {
  for (const Arithmetic& a : arithmetics) {
    for (std::int64_t channels = 1; channels <= 8; ++channels) {
      const GemmCase c{{1, 5, 6, channels}, {4, channels, 3, 3}, {1, 1, {}}, a.stored};
      const std::string chosen = prepare_conv(c, a).implementation;
      INFO(a.name << ", " << channels << " channels: " << chosen);
      CHECK((chosen.find("first_conv:") == 0) == (channels <= cuda::first_conv_most_channels));
    }
    // A patch that no block has room for.
    const GemmCase wide{{1, 90, 90, 3}, {4, 3, 89, 89}, {1, 1, {}}, a.stored};
    CHECK(prepare_conv(wide, a).implementation.find("gemm:") == 0);
    const GemmCase c{{1, 40, 40, 3}, {4, 3, 7, 7}, {2, 3, {}}, a.stored};
    cuda::Settings small;
    small.shared_per_block = 16 << 10;
    CHECK(prepare_conv(c, a, small).implementation.find("gemm:") == 0);
    CHECK(prepare_conv(c, a).packings.at(0).layout == prepare_conv(c, a, small).packings.at(0).layout);
  }
}
