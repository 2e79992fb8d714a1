#include <algorithm>
#include <bit>
#include <cstdint>
#include <string>
#include <vector>

#include "frcnn/error.h"
#include "gemm_case.h"

using namespace frcnn;
using namespace frcnn::test;
using frcnn::cuda::gemm_tiles;
using frcnn::cuda::GemmChoice;

namespace {

constexpr bool kBrief = kRaceCheck;  // toy sizes under ThreadSanitizer

// Channels for the gather of 16 bytes or of single elements, and a kernel that makes some steps of each.
struct Gather {
  const char* name;
  std::int64_t channels, kernel;
};
Gather gather_of(bool vector, DType stored) {
  if (vector) return {"VectorGather", stored == DType::f32 ? 20 : 40, 3};
  return {"ScalarGather", 5, 5};
}

const Epilogue epilogues[] = {{}, {true, 1.0f}, {true, 0.5f}, {false, -2.0f}};

std::string text(const Arithmetic& a, const GemmChoice& choice) {
  const auto& tile = gemm_tiles[static_cast<std::size_t>(choice.tile)];
  return std::string(a.name) + ", tile " + std::to_string(tile.rows) + "x" + std::to_string(tile.columns) +
         ", " + std::to_string(choice.splits) + " splits";
}

// Small integers: every sum is exact in any order and precision; only the stored result is rounded.
void check_exact(const GemmCase& c, const Arithmetic& a, const GemmChoice& choice, std::size_t order,
                 std::size_t orders) {
  FRCNN_CASE(text(a, choice) + "\n  " + text(c));
  const Tensor src = integers(c.src, 7, 1), weight = integers(c.weight, 3, 2),
               bias = integers({c.weight[0]}, 50, 3);
  const Prepared prepared = prepare_gemm(c, a, choice);
  const Tensor got = run_gemm(c, prepared, {stored_as(src, a.stored), weight, bias}, order, orders);
  const Tensor expected = stored_as(stored_shape(c), plain_gemm<float>(c, src, weight, bias), c.dst);
  CHECK(same_values(got, expected));
}

// Sizes of one row and column more than a tile, less than one, and exactly one.
std::vector<GemmCase> sizes(const Gather& gather, const cuda::GemmTile& tile, const Epilogue& epilogue,
                            DType dst) {
  const auto pad = static_cast<int>(gather.kernel / 2);
  const auto weight = [&](std::int64_t outputs) {
    return Shape{outputs, gather.channels, gather.kernel, gather.kernel};
  };
  const Conv2d op{1, pad, epilogue};
  if (kBrief) return {{{1, 5, 3, gather.channels}, weight(3), op, dst}};
  return {{{2, 5, 13, gather.channels}, weight(tile.columns + 1), op, dst},
          {{1, 7, 9, gather.channels}, weight(tile.columns - 1), op, dst},
          {{1, 8, tile.rows / 8, gather.channels}, weight(tile.columns), op, dst}};
}

#if defined(FRCNN_SIMT)
// The table of tiles against what was launched.
void check_all_launched() {
  std::string launched;
  for (const auto& [name, count] : simt::launched_kernels()) launched += name + "\n";
  for (const Arithmetic& a : arithmetics) {
    for (const cuda::GemmTile& tile : gemm_tiles) {
      for (const char* gather : {"VectorGather", "ScalarGather"}) {
        const std::string start = std::string("implicit_gemm_kernel<frcnn::cuda::") + a.name + ", " +
                                  std::to_string(tile.rows) + ", " + std::to_string(tile.columns) + ", ";
        CAPTURE(start, gather);
        bool found = false;
        for (std::size_t at = launched.find(start); at != std::string::npos;
             at = launched.find(start, at + 1)) {
          const std::string arguments = launched.substr(at, launched.find('\n', at) - at);
          found = found || arguments.substr(0, arguments.find(">(")).find(gather) != std::string::npos;
        }
        CHECK(found);
      }
    }
  }
}
#endif

}  // namespace

// One launch of each instance at least.
TEST_CASE("gemm: every arithmetic, tile and gather is exact on small integers", "[gemm]") {
  std::size_t turn = 0;
  for (const Arithmetic& a : arithmetics) {
    for (int tile = 0; tile < static_cast<int>(gemm_tiles.size()); ++tile) {
      for (const bool vector : {true, false}) {
        const Gather gather = gather_of(vector, a.stored);
        for (const int splits : {1, 3}) {
          for (const bool pooled : {false, true}) {
            Epilogue epilogue = epilogues[turn % std::size(epilogues)];
            epilogue.max_pool_2x2 = pooled;
            const DType dst = turn / 2 % 2 == 0 ? a.stored : DType::f32;
            const auto all = sizes(gather, gemm_tiles[static_cast<std::size_t>(tile)], epilogue, dst);
            // The three sizes take turns; between them the eight combinations of each instance see all.
            check_exact(all[turn % all.size()], a, {tile, splits}, turn, 1);
            ++turn;
          }
        }
      }
    }
  }
#if defined(FRCNN_SIMT)
  check_all_launched();
#endif
}

TEST_CASE("gemm: odd problems in every thread order", "[gemm]") {
  const GemmCase cases[] = {
      {{1, 1, 1, 1}, {1, 1, 1, 1}, {}},                             // one product
      {{1, 1, 1, 64}, {1, 64, 1, 1}, {}},                           // one pixel, one output
      {{1, 1, 1, 3}, {5, 3, 3, 3}, {1, 1, {true, 1.0f}}},           // all taps but one outside
      {{3, 2, 3, 7}, {66, 7, 1, 1}, {1, 0, {false, 2.0f}}},         // a batch below one tile
      {{1, 13, 7, 3}, {4, 3, 3, 5}, {1, 2, {}}},                    // a kernel that is not square
      {{1, 19, 17, 4}, {9, 4, 7, 7}, {2, 3, {true, 0.5f}}},         // a first layer's stride
      {{1, 12, 12, 8}, {8, 8, 2, 2}, {3, 0, {}}},                   // pixels that no patch covers
      {{1, 3, 66, 16}, {3, 16, 1, 3}, {1, 0, {true, 1.0f, true}}},  // pooling three rows
      {{2, 5, 1, 24}, {8, 24, 3, 1}, {1, 1, {true, 1.0f, true}}},   // pooling a column
  };
  std::size_t turn = 0;
  for (const Arithmetic& a : arithmetics) {
    for (GemmCase c : cases) {
      if (kBrief && c.src.row() > 100) continue;
      c.dst = turn++ % 2 == 0 ? a.stored : DType::f32;
      const int tile = static_cast<int>(turn % gemm_tiles.size());
      check_exact(c, a, {tile, 1 + static_cast<int>(turn % 2) * 3}, 0, kOrders);
    }
  }
}

// With as many steps as the split needs to be chosen at all, so that each part fills the stages and turns
// them over; with the other gather two steps a part, since it is the same loop and the emulator's time
// counts.
TEST_CASE("gemm: every configuration that can be chosen, in every arithmetic and gather", "[gemm]") {
  std::size_t turn = 0;
  for (const Arithmetic& a : arithmetics) {
    for (int tile = 0; tile < static_cast<int>(gemm_tiles.size()); ++tile) {
      for (const int splits : cuda::gemm_splits) {
        for (const bool vector : {true, false}) {
          if (splits > cuda::GemmProblem{}.most_splits || (kBrief && (tile < 2 || splits > 4))) continue;
          const std::int64_t depth = 64 / static_cast<std::int64_t>(size_of(a.stored)),
                             steps = std::int64_t{vector ? cuda::gemm_least_steps : 2} * splits;
          const std::int64_t channels = steps * depth - (vector ? 0 : 1);
          const GemmCase c{{1, 1, 3, channels}, {5, channels, 1, 1}, {1, 0, {true, 0.5f}}};
          check_exact(c, a, {tile, splits}, turn++, 1);
        }
      }
    }
  }
}

TEST_CASE("gemm: sixteen splits, and more splits than steps", "[gemm]") {
  const Epilogue relu{true, 1.0f};
  for (const Arithmetic& a : arithmetics) {
    check_exact({{2, 3, 4, 64}, {9, 64, 3, 3}, {1, 1, relu}, a.stored}, a, {2, 16}, 0, 2);
    check_exact({{2, 3, 4, 8}, {9, 8, 1, 1}, {1, 0, relu}, a.stored}, a, {2, 16}, 1, 2);
    check_exact({{1, 3, 4, 8}, {9, 8, 1, 3}, {1, 0, relu}, DType::f32}, a, {1, 2}, 2, 2);
  }
}

namespace {

// `tensor` as the arithmetic's operands see it: rounded to its storage, or to TF32's 10 bits of mantissa.
Tensor as_operand(const Tensor& tensor, const Arithmetic& a) {
  if (a.stored != DType::f32) return widened(stored_as(tensor, a.stored));
  Tensor rounded = tensor;
  if (a.precision == Precision::tf32)
    for (float& v : rounded.as<float>())
      v = std::bit_cast<float>((std::bit_cast<std::uint32_t>(v) + 0x1000u) & 0xffffe000u);
  return rounded;
}

}  // namespace

// The plain implementation in the same precision: operands rounded, products summed in fp32 one after the
// other, the result rounded to where it is stored. 3xTF32 stands for fp32, so fp32 loops are its measure. The
// truth is made of the same rounded operands in double, so the rounding that both share hides nothing.
TEST_CASE("gemm: at most twice the error of plain loops in the same precision", "[gemm]") {
  for (const Arithmetic& a : arithmetics) {
    for (const bool vector : {true, false}) {
      const Gather gather = gather_of(vector, a.stored);
      for (const DType dst : {DType::f32, a.stored}) {
        for (int tile = 0; tile < static_cast<int>(gemm_tiles.size()); ++tile) {
          if (kBrief && tile < 2) continue;
          const GemmCase c{{1, 7, 9, gather.channels},
                           {24, gather.channels, gather.kernel, gather.kernel},
                           {1, 1, {vector, 1.0f, tile == 1}},
                           dst};
          const GemmChoice choice{tile, tile == 0 ? 2 : 1};
          FRCNN_CASE(text(a, choice) + "\n  " + text(c));
          const Tensor src = uniform(c.src, -1, 1, 4), weight = uniform(c.weight, -1, 1, 5),
                       bias = uniform({c.weight[0]}, -1, 1, 6);
          const Prepared prepared = prepare_gemm(c, a, choice);
          const Tensor got = run_gemm(c, prepared, {stored_as(src, a.stored), weight, bias}, 0);
          const Tensor x = as_operand(src, a), w = as_operand(weight, a);
          const Tensor plain = stored_as(stored_shape(c), plain_gemm<float>(c, x, w, bias), dst);
          check_error(widened(got).as<float>(), widened(plain).as<float>(),
                      plain_gemm<double>(c, x, w, bias));
        }
        if (a.stored == DType::f32) break;  // the other one is the same
      }
    }
  }
}

TEST_CASE("gemm: pooling in the epilogue equals pooling afterwards", "[gemm]") {
  const Shape maps[] = {{1, 1, 1, 8}, {1, 1, 5, 8}, {2, 5, 7, 3}, {1, 9, 6, 8}, {1, 6, 9, 5}};
  std::size_t turn = 0;
  for (const Arithmetic& a : arithmetics) {
    for (const Shape& src : maps) {
      for (const bool relu : {true, false}) {
        for (const DType dst : {a.stored, DType::f32}) {
          GemmCase c{src, {11, src[3], 3, 3}, {1, 1, {relu, 1.0f, false}}, dst};
          FRCNN_CASE(std::string(a.name) + "\n  " + text(c));
          const GemmChoice choice{static_cast<int>(++turn % gemm_tiles.size()), 1};
          const std::vector<Tensor> in{stored_as(uniform(src, -1, 1, 7), a.stored),
                                       uniform(c.weight, -1, 1, 8), uniform({11}, -1, 1, 9)};
          const Tensor map = run_gemm(c, prepare_gemm(c, a, choice), in, turn);
          c.op.epilogue.max_pool_2x2 = true;
          const Tensor fused = run_gemm(c, prepare_gemm(c, a, choice), in, turn);
          const Tensor pooled = run_op(MaxPool{2, 2, 0, Rounding::ceil}, {map}, {fused.spec})[0];
          CHECK(fused.bytes == pooled.bytes);
        }
      }
    }
  }
}

TEST_CASE("gemm: a NaN or an infinity shows where its pixel takes part, and nowhere else", "[gemm]") {
  for (const Arithmetic& a : arithmetics) {
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      for (const std::int64_t channels : {8, 3}) {
        GemmCase c{{1, 5, 6, channels}, {4, channels, 3, 3}, {1, 1, {}}, a.stored};
        FRCNN_CASE(std::string(a.name) + "\n  " + text(c));
        Tensor src = uniform(c.src, 0.5f, 1, 1);
        src.as<float>()[0] = bad;  // the first channel of the first pixel
        const std::vector<Tensor> in{stored_as(src, a.stored), uniform(c.weight, 0.5f, 1, 2),
                                     uniform({4}, 0, 1, 3)};
        const Tensor got = widened(run_gemm(c, prepare_gemm(c, a, {2, 1}), in, 0));
        for (std::int64_t y = 0; y < 5; ++y)
          for (std::int64_t x = 0; x < 6; ++x)
            for (std::int64_t o = 0; o < 4; ++o) {
              CAPTURE(y, x, o);
              const float v = got.as<float>()[static_cast<std::size_t>((y * 6 + x) * 4 + o)];
              CHECK(std::isfinite(v) == !(y < 2 && x < 2));
            }
      }
    }
  }
}

TEST_CASE("gemm: storage that maps do not have is refused by name", "[gemm]") {
  const Conv2d op{1, 1, {}};
  const auto prepare = [&](DType src, DType dst) {
    const std::vector<TensorSpec> in{{{1, 4, 4, 8}, src}, {{8, 8, 3, 3}}, {{8}}}, out{{{1, 4, 4, 8}, dst}};
    return cuda::prepare(op, KernelSpec{in, out}, cuda::Settings{});
  };
  CHECK(prepare(DType::f32, DType::bf16).implementation.substr(0, 5) == "gemm:");
  for (const auto& [src, dst] : {std::pair{DType::f64, DType::f32}, std::pair{DType::f32, DType::i32}}) {
    try {
      prepare(src, dst);
      FAIL("not refused");
    } catch (const Error& e) {
      CHECK(e.code() == ErrorCode::unsupported);
      CHECK(std::string(e.what()).find(name_of(src == DType::f64 ? src : dst)) != std::string::npos);
    }
  }
}
