// The matrix products of the backward pass, in every configuration that there is.
#include <string>
#include <vector>

#include "frcnn/error.h"
#include "reference/linear_backward.h"
#include "weight_gradient_case.h"

using namespace frcnn;
using namespace frcnn::test;

namespace {

constexpr bool kBrief = kRaceCheck;  // toy sizes under ThreadSanitizer

std::string text(const Arithmetic& a, const cuda::GemmChoice& choice) {
  const auto& tile = cuda::gemm_tiles[static_cast<std::size_t>(choice.tile)];
  return std::string(a.name) + ", tile " + std::to_string(tile.rows) + "x" + std::to_string(tile.columns) +
         ", " + std::to_string(choice.splits) + " splits";
}

// Outputs and columns around a tile's sides; channels that copies of 16 bytes take, and others.
std::vector<WeightGradientCase> sizes(const cuda::GemmTile& tile) {
  if (kBrief) return {{{1, 5, 3, 4}, {4, 4, 3, 3}, 1, 1}, {{1, 5, 3, 3}, {5, 3, 1, 1}, 1, 0}};
  return {{{1, 7, 9, 8}, {tile.rows, 8, 3, 3}, 1, 1},
          {{2, 5, 6, 3}, {tile.rows + 1, 3, 5, 5}, 2, 2},
          {{1, 9, 4, tile.columns + 4}, {tile.rows - 1, tile.columns + 4, 1, 1}, 1, 0},
          {{1, 4, 11, tile.columns - 1}, {8, tile.columns - 1, 1, 1}, 3, 1},
          {{3, 1, 1, 6}, {12, 6, 1, 1}, 1, 0}};
}

}  // namespace

TEST_CASE("weight gradient: every arithmetic and tile is exact on small integers", "[gradients]") {
  std::size_t turn = 0;
  for (const Arithmetic& a : arithmetics) {
    for (int tile = 0; tile < static_cast<int>(cuda::gemm_tiles.size()); ++tile) {
      for (const int splits : {1, 3}) {
        const auto all = sizes(cuda::gemm_tiles[static_cast<std::size_t>(tile)]);
        // 16-bit programs multiply gradients as tf32: one size is enough to see it.
        for (std::size_t i = 0; i < (a.stored == DType::f32 ? all.size() : 1); ++i, ++turn) {
          WeightGradientCase c = all[i];
          c.accumulate = turn % 2 == 1;
          FRCNN_CASE(text(a, {tile, splits}) + "\n  " + test::text(c));
          check_weight_gradient(c, a, {tile, splits}, turn, 1);
        }
      }
    }
  }
}

// As many steps as each number of splits needs to be chosen at all.
TEST_CASE("weight gradient: every number of splits is exact on small integers", "[gradients]") {
  std::size_t turn = 0;
  for (const Arithmetic& a : arithmetics) {
    for (const int splits : cuda::gemm_splits) {
      if (kBrief && splits > 4) continue;
      const WeightGradientCase c{{1, 16, cuda::gemm_least_steps * splits, 4}, {5, 4, 1, 1}, 1, 0};
      const int tile = static_cast<int>(turn % cuda::gemm_tiles.size());
      FRCNN_CASE(text(a, {tile, splits}) + "\n  " + test::text(c));
      check_weight_gradient(c, a, {tile, splits}, turn++, 1);
    }
  }
}

TEST_CASE("weight gradient: the same bits in every thread order", "[gradients]") {
  const WeightGradientCase c = kBrief ? WeightGradientCase{{1, 5, 3, 4}, {4, 4, 3, 3}, 1, 1}
                                      : WeightGradientCase{{2, 7, 9, 20}, {37, 20, 3, 3}, 1, 1};
  const Tensor src = uniform(c.src, -1, 1, 1), d_dst = uniform(result_shape(c), -1, 1, 2);
  for (const Arithmetic& a : arithmetics) {
    FRCNN_CASE(std::string(a.name) + ": " + test::text(c));
    run_weight_gradient(c, a, {2, 3}, {src, d_dst}, {}, 0, kOrders);
  }
}

// The error of an arithmetic against the exact sums, relative to what plain fp32 loops leave.
TEST_CASE("weight gradient: each arithmetic's error", "[gradients]") {
  if (kBrief) return;
  const WeightGradientCase c{{2, 9, 11, 16}, {24, 16, 3, 3}, 1, 1};
  const Tensor src = uniform(c.src, -1, 1, 1), d_dst = uniform(result_shape(c), -1, 1, 2);
  const auto expected = reference::conv2d_backward<double>(
      1, 1, c.src, src.as<float>(), c.weight,
      std::vector<float>(static_cast<std::size_t>(c.weight.elements())), d_dst.spec.shape, d_dst.as<float>());
  const double terms = 198;  // of each sum at most; of products up to 1
  for (const Arithmetic& a : arithmetics) {
    FRCNN_CASE(a.name);
    const auto got = run_weight_gradient(c, a, {2, 1}, {src, d_dst}, {}, 0, 1);
    const bool rounded = a.precision != Precision::fp32 && a.precision != Precision::tf32x3;
    // Operands of 11 bits, rounded to the nearest, or sums in 24 bits.
    CHECK(max_error(got[0].as<float>(), expected.weight) < (rounded ? terms * 0x1p-11 : terms * 0x1p-22));
  }
}

TEST_CASE("source gradient: every arithmetic is exact on small integers", "[gradients]") {
  const WeightGradientCase cases[] = {{{1, 9, 8, 5}, {7, 5, 3, 3}, 1, 1},
                                      {{1, 9, 8, 8}, {16, 8, 5, 5}, 2, 2},
                                      {{2, 6, 7, 12}, {20, 12, 3, 2}, 1, 0}};
  for (const Arithmetic& a : arithmetics) {
    cuda::Settings settings;
    settings.precision = a.precision;
    for (const WeightGradientCase& c : cases) {
      if (kBrief && c.weight[0] > 7) continue;
      FRCNN_CASE(std::string(a.name) + ": source of " + test::text(c));
      const Shape d = result_shape(c);
      const Tensor src = integers(c.src, 1, 1), weight = integers(c.weight, 7, 2), d_dst = integers(d, 7, 3);
      const auto expected = reference::conv2d_backward<float>(
          c.stride, c.pad, c.src, src.as<float>(), c.weight, weight.as<float>(), d, d_dst.as<float>());
      const Conv2dBackwardData op{c.stride, c.pad, c.src[1], c.src[2]};
      const std::vector<TensorSpec> in{d_dst.spec, weight.spec}, out{{c.src}};
      const Prepared prepared = cuda::prepare(op, KernelSpec{in, out}, settings);
      CHECK(max_error(run_orders(prepared, {d_dst, weight}, out, 0, 1)[0].as<float>(), expected.src) == 0);
    }
  }
}

TEST_CASE("gradients: maps in 16 bits are refused by name", "[gradients]") {
  const TensorSpec narrow{{1, 4, 4, 8}, DType::bf16}, weight{{8, 8, 3, 3}}, bias{{8}};
  const auto refused = [](const auto& op, const std::vector<TensorSpec>& in,
                          const std::vector<TensorSpec>& out) {
    try {
      cuda::prepare(op, KernelSpec{in, out}, cuda::Settings{});
    } catch (const Error& e) {
      const std::string what = e.what();
      return e.code() == ErrorCode::unsupported && what.find("bf16") != std::string::npos &&
             what.find(name_of(Op(op))) == 0;
    }
    return false;
  };
  CHECK(refused(Conv2dBackwardData{1, 1, 4, 4}, {narrow, weight}, {narrow}));
  CHECK(refused(Conv2dBackwardWeight{1, 1, 3, 3, false}, {narrow, narrow}, {weight, bias}));
  CHECK(refused(ReluBackward{}, {narrow, narrow}, {narrow}));
  CHECK(refused(Add{}, {narrow, narrow}, {narrow}));
  CHECK(refused(LrnBackward{}, {narrow, narrow}, {narrow}));
}

// A layout's name promises its bytes: one weight has three, for the forward pass, for sources of maps, and
// turned round.
TEST_CASE("gradients: packings of one weight have different names", "[gradients]") {
  const auto layout = [](const auto& op, const std::vector<TensorSpec>& in) {
    const std::vector<TensorSpec> out = infer(op, in, "test");
    return cuda::prepare(op, KernelSpec{in, out}, cuda::Settings{}).packings.at(0).layout;
  };
  const TensorSpec weight{{8, 8, 3, 3}}, bias{{8}}, map{{1, 6, 7, 8}};
  CHECK(layout(Conv2d{1, 1, {}}, {map, weight, bias}) !=
        layout(Conv2dBackwardData{1, 1, 6, 7}, {map, weight}));
  const TensorSpec matrix{{16, 16}}, bias16{{16}}, rows{{3, 16}}, cells{{3, 2, 2, 4}};
  const std::string all[] = {
      layout(Linear{}, {rows, matrix, bias16}), layout(Linear{}, {cells, matrix, bias16}),
      layout(LinearBackwardData{}, {rows, matrix}), layout(LinearBackwardData{{2, 2, 4}}, {rows, matrix})};
  for (std::size_t i = 0; i < 4; ++i)
    for (std::size_t k = 0; k < i; ++k) CHECK(all[i] != all[k]);
}
