// Every emulated instruction alone. The fragment maps are written down here once more, and the other way
// round than in the emulator: from the element of a matrix to the lane and register that hold it. Compiled
// against the CUDA runtime instead of the emulator, this file is the conformance test of the same statements
// on a GPU.
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "catch.h"
#include "tests/simt/buffer.h"
#include "tests/simt/instructions.h"

using namespace frcnn::simt_test;

namespace {

struct Held {
  int lane, reg, half;  // half: 0 the low 16 bits
};

// PTX ISA 9.0, 9.7.14.5.8, m16n8k16 of f16 and bf16.
Held a_16(int row, int k) { return {row % 8 * 4 + k % 8 / 2, row / 8 + k / 8 * 2, k % 2}; }
Held b_16(int k, int column) { return {column * 4 + k % 8 / 2, k / 8, k % 2}; }
// 9.7.14.5.7, m16n8k8 of tf32.
Held a_tf32(int row, int k) { return {row % 8 * 4 + k % 4, row / 8 + k / 4 * 2, 0}; }
Held b_tf32(int k, int column) { return {column * 4 + k % 4, k / 4, 0}; }
// Both: the fp32 accumulators.
Held c_32(int row, int column) { return {row % 8 * 4 + column / 2, row / 8 * 2 + column % 2, 0}; }

int depth_of(Mma kind) { return kind == Mma::tf32 ? 8 : 16; }

// Small integers and powers of two have the same value in all three formats.
std::uint32_t encode(Mma kind, float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if (kind == Mma::tf32) return bits;
  if (kind == Mma::bf16) return bits >> 16;
  if (value == 0) return 0;
  const int exponent = static_cast<int>(bits >> 23 & 255u) - 127 + 15;
  REQUIRE((exponent > 0 && exponent < 31 && (bits & 0x1fffu) == 0));
  return (bits >> 16 & 0x8000u) | static_cast<std::uint32_t>(exponent) << 10 | (bits >> 13 & 0x3ffu);
}

struct Warps {
  explicit Warps(Mma kind_, int cases_)
      : kind(kind_),
        cases(cases_),
        a(cases_ * 128u),
        b(cases_ * 64u),
        c(cases_ * 128u),
        d(cases_ * 128u, -1.0f) {}

  void set(Buffer<std::uint32_t>& registers, int per_lane, int which, Held at, float value) {
    registers[static_cast<std::size_t>((which * 32 + at.lane) * per_lane + at.reg)] |= encode(kind, value)
                                                                                       << (16 * at.half);
  }
  void set_a(int which, int row, int k, float value) {
    set(a, 4, which, kind == Mma::tf32 ? a_tf32(row, k) : a_16(row, k), value);
  }
  void set_b(int which, int k, int column, float value) {
    set(b, 2, which, kind == Mma::tf32 ? b_tf32(k, column) : b_16(k, column), value);
  }
  float& c_at(int which, int row, int column) {
    const Held at = c_32(row, column);
    return c[static_cast<std::size_t>((which * 32 + at.lane) * 4 + at.reg)];
  }
  float d_at(int which, int row, int column) const {
    const Held at = c_32(row, column);
    return d[static_cast<std::size_t>((which * 32 + at.lane) * 4 + at.reg)];
  }
  void run() {
    run_mma(kind, cases, a.data(), b.data(), c.data(), d.data());
    synchronize();
  }

  Mma kind;
  int cases;
  Buffer<std::uint32_t> a, b;
  Buffer<float> c, d;
};

}  // namespace

TEST_CASE("mma: each element of A is read where the PTX ISA puts it") {
  for (const Mma kind : {Mma::f16, Mma::bf16, Mma::tf32}) {
    const int depth = depth_of(kind);
    // Case (row, k): A is 1 there and 0 elsewhere, B[k][n] = 1 + 8 k + n, so that row of D is row k of B.
    Warps warps(kind, 16 * depth);
    for (int which = 0; which < warps.cases; ++which) {
      warps.set_a(which, which / depth, which % depth, 1.0f);
      for (int k = 0; k < depth; ++k) {
        for (int n = 0; n < 8; ++n) warps.set_b(which, k, n, static_cast<float>(1 + 8 * k + n));
      }
    }
    warps.run();
    int wrong = 0;
    for (int which = 0; which < warps.cases; ++which) {
      for (int row = 0; row < 16; ++row) {
        for (int n = 0; n < 8; ++n) {
          const float expected =
              row == which / depth ? static_cast<float>(1 + 8 * (which % depth) + n) : 0.0f;
          wrong += warps.d_at(which, row, n) != expected;
        }
      }
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("mma: each element of B is read where the PTX ISA puts it") {
  for (const Mma kind : {Mma::f16, Mma::bf16, Mma::tf32}) {
    const int depth = depth_of(kind);
    Warps warps(kind, depth * 8);
    for (int which = 0; which < warps.cases; ++which) {
      warps.set_b(which, which / 8, which % 8, 1.0f);
      for (int row = 0; row < 16; ++row) {
        for (int k = 0; k < depth; ++k) warps.set_a(which, row, k, static_cast<float>(1 + depth * row + k));
      }
    }
    warps.run();
    int wrong = 0;
    for (int which = 0; which < warps.cases; ++which) {
      for (int row = 0; row < 16; ++row) {
        for (int n = 0; n < 8; ++n) {
          const float expected = n == which % 8 ? static_cast<float>(1 + depth * row + which / 8) : 0.0f;
          wrong += warps.d_at(which, row, n) != expected;
        }
      }
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("mma: adds the product of small integers to the accumulator exactly, in every order") {
  std::mt19937 random(7);
  const auto small = [&] { return static_cast<float>(static_cast<int>(random() % 15) - 7); };
  in_every_order([&] {
    for (const Mma kind : {Mma::f16, Mma::bf16, Mma::tf32}) {
      const int depth = depth_of(kind), cases = 3;
      Warps warps(kind, cases);
      std::vector<float> expected;
      for (int which = 0; which < cases; ++which) {
        float a[16][16], b[16][8];
        for (int k = 0; k < depth; ++k) {
          for (int row = 0; row < 16; ++row) warps.set_a(which, row, k, a[row][k] = small());
          for (int n = 0; n < 8; ++n) warps.set_b(which, k, n, b[k][n] = small());
        }
        for (int row = 0; row < 16; ++row) {
          for (int n = 0; n < 8; ++n) {
            float sum = warps.c_at(which, row, n) = 1000.0f * static_cast<float>(row) + static_cast<float>(n);
            for (int k = 0; k < depth; ++k) sum += a[row][k] * b[k][n];
            expected.push_back(sum);
          }
        }
      }
      warps.run();
      int wrong = 0;
      for (std::size_t i = 0; i < expected.size(); ++i) {
        const int at = static_cast<int>(i);
        wrong += warps.d_at(at / 128, at / 8 % 16, at % 8) != expected[i];
      }
      CHECK(wrong == 0);
    }
  });
}

TEST_CASE("mma of tf32 does not look at the lower 13 bits") {
  Warps warps(Mma::tf32, 1);
  const Held at = a_tf32(3, 5);
  warps.a[static_cast<std::size_t>(at.lane * 4 + at.reg)] = std::bit_cast<std::uint32_t>(1.0f) | 0x1fffu;
  warps.set_b(0, 5, 2, 1.0f);
  warps.run();
  CHECK(warps.d_at(0, 3, 2) == 1.0f);
}

TEST_CASE("mma hands on infinity and NaN") {
  for (const Mma kind : {Mma::f16, Mma::bf16, Mma::tf32}) {
    const std::uint32_t infinity = kind == Mma::f16 ? 0x7c00u : kind == Mma::bf16 ? 0x7f80u : 0x7f800000u;
    Warps warps(kind, 1);
    for (const int row : {0, 9}) {
      const Held at = kind == Mma::tf32 ? a_tf32(row, 0) : a_16(row, 0);
      warps.a[static_cast<std::size_t>(at.lane * 4 + at.reg)] |= infinity << (16 * at.half);
    }
    warps.set_b(0, 0, 0, 2.0f);
    warps.set_b(0, 0, 2, -1.0f);
    warps.c_at(0, 9, 0) = -std::numeric_limits<float>::infinity();
    warps.run();
    CHECK(warps.d_at(0, 0, 0) == std::numeric_limits<float>::infinity());
    CHECK(warps.d_at(0, 0, 2) == -std::numeric_limits<float>::infinity());
    CHECK(std::isnan(warps.d_at(0, 0, 1)));  // infinity times zero
    CHECK(std::isnan(warps.d_at(0, 9, 0)));  // infinity minus infinity
    CHECK(warps.d_at(0, 1, 0) == 0.0f);
  }
}

TEST_CASE("ldmatrix: each element arrives where the PTX ISA puts it, in every order") {
  // "Warp-level matrix load instruction: ldmatrix": element (row, column) of matrix m arrives in register m
  // of lane 4 row + column / 2, in the half column % 2; with .trans in that of element (column, row).
  in_every_order([&] {
    for (const int count : {1, 2, 4}) {
      for (const bool transposed : {false, true}) {
        Buffer<std::uint16_t> source(static_cast<std::size_t>(count * 64));
        for (std::size_t i = 0; i < source.size(); ++i) source[i] = static_cast<std::uint16_t>(40000 + 3 * i);
        Buffer<std::uint32_t> result(static_cast<std::size_t>(32 * count));
        run_ldmatrix(count, transposed, source.data(), result.data());
        synchronize();
        int wrong = 0;
        for (int m = 0; m < count; ++m) {
          for (int row = 0; row < 8; ++row) {
            for (int column = 0; column < 8; ++column) {
              const int r = transposed ? column : row, c = transposed ? row : column;
              const std::uint32_t held = result[static_cast<std::size_t>((4 * r + c / 2) * count + m)];
              wrong += (held >> (16 * (c % 2)) & 0xffffu) !=
                       source[static_cast<std::size_t>(m * 64 + row * 8 + column)];
            }
          }
        }
        CHECK(wrong == 0);
      }
    }
  });
}

TEST_CASE("cvt.rna.tf32 rounds to 10 mantissa bits, ties away from zero") {
  const float infinity = std::numeric_limits<float>::infinity(), largest = std::numeric_limits<float>::max();
  Buffer<float> value = {0.0f,
                         -0.0f,
                         1.0f,
                         1.0f + 0x1p-11f,
                         1.0f + 0x1p-11f - 0x1p-23f,
                         -(1.0f + 0x1p-11f),
                         1.0f + 0x3p-11f,
                         infinity,
                         -infinity,
                         largest,
                         0x1p-149f,
                         3.0f * 0x1p-140f};
  const std::vector<float> expected = {
      0.0f,           -0.0f,    1.0f,      1.0f + 0x1p-10f, 1.0f, -(1.0f + 0x1p-10f),
      1.0f + 0x1p-9f, infinity, -infinity, infinity,        0.0f, 0.0f};
  std::mt19937 random(11);
  std::vector<float> more = expected;
  for (int i = 0; i < 1000; ++i) {
    // By arithmetic: scale to an integer of 11 bits, round half away, scale back.
    int exponent = 0;
    const float v = std::ldexp(static_cast<float>(static_cast<std::int32_t>(random())),
                               static_cast<int>(random() % 60) - 40);
    const double mantissa = std::frexp(static_cast<double>(v), &exponent);
    value.push_back(v);
    more.push_back(static_cast<float>(std::ldexp(std::round(std::ldexp(mantissa, 11)), exponent - 11)));
  }
  Buffer<std::uint32_t> result(value.size());
  run_cvt_rna_tf32(static_cast<int>(value.size()), value.data(), result.data());
  synchronize();
  for (std::size_t i = 0; i < value.size(); ++i) {
    INFO("of " << value[i]);
    CHECK((result[i] & 0xffffe000u) == (std::bit_cast<std::uint32_t>(more[i]) & 0xffffe000u));
  }
}

TEST_CASE("cp.async copies, fills with zeros, and is there after the wait, in every order") {
  in_every_order([&] {
    for (const int bytes : {4, 8, 16}) {
      const int threads = 64;
      Buffer<std::uint8_t> source(static_cast<std::size_t>(threads * bytes)), result(source.size());
      Buffer<int> source_bytes(static_cast<std::size_t>(threads));
      for (std::size_t i = 0; i < source.size(); ++i) source[i] = static_cast<std::uint8_t>(1 + i % 251);
      for (int i = 0; i < threads; ++i) source_bytes[static_cast<std::size_t>(i)] = i % (bytes + 1);
      run_cp_async(bytes, threads, source.data(), source_bytes.data(), result.data());
      synchronize();
      int wrong = 0;
      for (int i = 0; i < threads * bytes; ++i) {
        const bool copied = i % bytes < i / bytes % (bytes + 1);
        wrong += result[static_cast<std::size_t>(i)] != (copied ? source[static_cast<std::size_t>(i)] : 0);
      }
      CHECK(wrong == 0);
    }
  });
}

TEST_CASE("shuffles move values as the programming guide says, in every order") {
  in_every_order([&] {
    for (const int width : {32, 16, 8, 2, 1}) {
      for (const int by : {0, 1, 3, 7, 16, 31}) {
        for (const Shuffle kind : {Shuffle::from, Shuffle::up, Shuffle::down, Shuffle::exchange}) {
          Buffer<float> value(32), result(32);
          Buffer<int> argument(32);
          for (int lane = 0; lane < 32; ++lane) {
            value[static_cast<std::size_t>(lane)] = static_cast<float>(100 + lane);
            argument[static_cast<std::size_t>(lane)] = kind == Shuffle::from ? lane * by + 1 : by;
          }
          run_shuffle(kind, 0xffffffffu, width, argument.data(), value.data(), result.data());
          synchronize();
          for (int lane = 0; lane < 32; ++lane) {
            const int group = lane / width * width, in_group = lane % width;
            int source = lane;
            if (kind == Shuffle::from) source = group + argument[static_cast<std::size_t>(lane)] % width;
            if (kind == Shuffle::up && in_group >= by) source = lane - by;
            if (kind == Shuffle::down && in_group + by < width) source = lane + by;
            if (kind == Shuffle::exchange && (lane ^ by) < group + width) source = lane ^ by;
            INFO("kind " << static_cast<int>(kind) << " width " << width << " by " << by << " lane " << lane);
            CHECK(result[static_cast<std::size_t>(lane)] == static_cast<float>(100 + source));
          }
        }
      }
    }
  });
}

TEST_CASE("shuffles within a part of the warp leave the others alone") {
  Buffer<float> value(32), result(32);
  Buffer<int> argument(32, 1);
  for (std::size_t lane = 0; lane < 32; ++lane) value[lane] = static_cast<float>(lane);
  run_shuffle(Shuffle::exchange, 0x0ff0u, 32, argument.data(), value.data(), result.data());
  synchronize();
  for (std::size_t lane = 0; lane < 32; ++lane) {
    CHECK(result[lane] == static_cast<float>(lane >= 4 && lane < 12 ? lane ^ 1u : lane));
  }
}

TEST_CASE("votes, matches and reductions speak of the lanes of the mask, in every order") {
  in_every_order([&] {
    for (const unsigned mask : {0xffffffffu, 0x0000ffffu, 0x80000001u, 0x55555555u}) {
      for (const unsigned modulus : {1u, 2u, 5u}) {
        Buffer<std::uint32_t> value(32), result(32 * 7);
        for (unsigned lane = 0; lane < 32; ++lane) value[lane] = lane % modulus;
        run_votes(mask, value.data(), result.data());
        synchronize();
        unsigned ballot = 0, sum = 0, most = 0;
        for (unsigned lane = 0; lane < 32; ++lane) {
          if (!(mask >> lane & 1u)) continue;
          if (value[lane]) ballot |= 1u << lane;
          sum += value[lane];
          most = value[lane] > most ? value[lane] : most;
        }
        for (unsigned lane = 0; lane < 32; ++lane) {
          const std::uint32_t* const mine = result.data() + lane * 7;
          const bool in = mask >> lane & 1u;
          unsigned alike = 0;
          for (unsigned other = 0; other < 32; ++other) {
            if ((mask >> other & 1u) && value[other] == value[lane]) alike |= 1u << other;
          }
          INFO("mask " << mask << " modulus " << modulus << " lane " << lane);
          CHECK(mine[0] == (in ? ballot : 0));
          CHECK(mine[1] == (in && ballot != 0 ? 1u : 0u));
          CHECK(mine[2] == (in && ballot == mask ? 1u : 0u));
          // Converged or not is the hardware's choice; that it contains the asking lane and nobody outside is
          // not.
          CHECK((mine[3] & ~mask) == 0);
          if (in) CHECK((mine[3] >> lane & 1u) == 1u);
          CHECK(mine[4] == (in ? alike : 0));
          CHECK(mine[5] == (in ? sum : 0));
          CHECK(mine[6] == (in ? most : 0));
        }
      }
    }
  });
}

TEST_CASE("atomics lose nothing, in every order") {
  in_every_order([&] {
    const int threads = 200;
    Buffer<int> value(static_cast<std::size_t>(threads));
    int sum = 0, least = 1000, most = -1000;
    for (int i = 0; i < threads; ++i) {
      const int v = i * 37 % 101 - 50;
      value[static_cast<std::size_t>(i)] = v;
      sum += v;
      least = v < least ? v : least;
      most = v > most ? v : most;
    }
    Buffer<AtomicCells> cell(1);
    cell[0] = {5, 1000, -1000, 7, 0xffffffffu, 0, 0, 0, 0, 1, 0, 0.5f};
    run_atomics(threads, value.data(), cell.data());
    synchronize();
    CHECK(cell[0].add_int == 5 + sum);
    CHECK(cell[0].min_int == least);
    CHECK(cell[0].max_int == most);
    CHECK(cell[0].add_unsigned == 7u + threads * (threads - 1) / 2);
    CHECK(cell[0].and_unsigned == 0u);
    CHECK(cell[0].or_unsigned == 0xffffffffu);
    CHECK(cell[0].xor_unsigned == 0x000000ffu);  // bits 0 to 7 seven times, the others six
    CHECK(cell[0].add_ull == 1 + 200 * (1ull << 33));
    CHECK(cell[0].max_ull == 199ull << 40);
    CHECK(cell[0].add_float == 0.5f + static_cast<float>(sum));
    CHECK(cell[0].swapped_count == 200u);
    CHECK((cell[0].exchanged >= 1 && cell[0].exchanged <= 200));
  });
}

TEST_CASE("threads know their place, and block votes count the block, in every order") {
  in_every_order([&] {
    const int blocks = 6, threads = 40;
    Buffer<int> predicate(static_cast<std::size_t>(blocks * threads)), result(predicate.size() * 6);
    for (int i = 0; i < blocks * threads; ++i)
      predicate[static_cast<std::size_t>(i)] = i % threads < i / threads * 8;
    run_block_votes(blocks, threads, predicate.data(), result.data());
    synchronize();
    for (int i = 0; i < blocks * threads; ++i) {
      const int* const mine = result.data() + i * 6;
      const int count = i / threads * 8;
      const unsigned at = static_cast<unsigned>(i);
      CHECK(mine[0] == i);
      CHECK(mine[1] == count);
      CHECK(mine[2] == (count > 0));
      CHECK(mine[3] == (count == threads));
      CHECK(mine[4] ==
            std::popcount(at) + 100 * std::countl_zero(at) + 10000 * (i ? std::countr_zero(at) + 1 : 0));
      CHECK(static_cast<unsigned>(mine[5]) == 0x77225500u);
    }
  });
}
