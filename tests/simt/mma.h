// The tensor-core instructions as warp collectives. Fragment layouts: PTX ISA 9.0, sections 9.7.14.5.7
// ("Matrix Fragments for mma.m16n8k8") and 9.7.14.5.8 ("... mma.m16n8k16 with floating point type").
//
// The last lane to come computes for all. Products of two operands are exact in double; their sum is taken in
// double and rounded to fp32 once per instruction. A tensor core keeps fewer bits and truncates; that is not
// emulated.
#pragma once

#include <cstdint>
#include <cstring>

#include "tests/simt/engine.h"
#include "tests/simt/half.h"

namespace frcnn::simt {

// --- ldmatrix

struct MatrixRow {
  std::uint16_t element[8];
};

struct LoadMatrix {
  MatrixRow row;  // read from this lane's address
  std::uint32_t result[4];
};

// `count` 8x8 matrices of 16-bit elements. Lane 8 m + r brings the address of row r of matrix m. Register m
// of lane l gets elements 2 (l % 4) and the next of row l / 4, or with `transposed` of column l / 4.
template <int count, bool transposed>
void ldmatrix(std::uint32_t* result, const void* row, const char* name, Site site) {
  LoadMatrix mine{};
  if (lane_index() < 8 * count) {
    if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0)
      fail(std::string(name) + ": row address is not a multiple of 16");
    std::memcpy(&mine.row, row, sizeof mine.row);  // checked: this lane reads
  }
  collective(0xffffffffu, name, Participation::aligned, site, &mine, [](const Lanes& lanes) {
    for (unsigned lane = 0; lane < 32; ++lane) {
      for (unsigned m = 0; m < count; ++m) {
        std::uint16_t pair[2];
        for (unsigned i = 0; i < 2; ++i) {
          const unsigned along = 2 * (lane % 4) + i, across = lane / 4;
          const unsigned r = transposed ? along : across, c = transposed ? across : along;
          pair[i] = lanes.of<LoadMatrix>(8 * m + r).row.element[c];
        }
        lanes.of<LoadMatrix>(lane).result[m] = pair[0] | std::uint32_t{pair[1]} << 16;
      }
    }
  });
  std::memcpy(result, mine.result, count * sizeof(std::uint32_t));
}

// --- mma.sync

struct Fragments {
  float d[4];  // the accumulator, replaced by the result
  std::uint32_t a[4], b[2];
};

// The accumulator's map, the same for all m16n8: c0, c1 in row groupID, c2, c3 eight rows below.
struct Place {
  unsigned row, column;
};
inline Place accumulator_place(unsigned lane, unsigned i) {
  return {lane / 4 + 8 * (i / 2), 2 * (lane % 4) + i % 2};
}

template <int depth>
struct WarpTile {
  double a[16][depth], b[depth][8];

  void multiply(const Lanes& lanes) const {
    double sum[16][8] = {};
    for (int m = 0; m < 16; ++m) {
      for (int k = 0; k < depth; ++k) {
        for (int n = 0; n < 8; ++n) sum[m][n] += a[m][k] * b[k][n];
      }
    }
    for (unsigned lane = 0; lane < 32; ++lane) {
      for (unsigned i = 0; i < 4; ++i) {
        const Place at = accumulator_place(lane, i);
        float& d = lanes.of<Fragments>(lane).d[i];
        d = static_cast<float>(d + sum[at.row][at.column]);
      }
    }
  }
};

// m16n8k16: a register holds two neighbours along k, the lower in the low half.
template <float (*decode)(std::uint16_t)>
void multiply_16bit(const Lanes& lanes) {
  WarpTile<16> tile;
  for (unsigned lane = 0; lane < 32; ++lane) {
    const auto& from = lanes.of<Fragments>(lane);
    const unsigned group = lane / 4, in_group = lane % 4;
    for (unsigned i = 0; i < 8; ++i) {  // a0 to a7
      const unsigned row = i < 2 || (i >= 4 && i < 6) ? group : group + 8;
      const unsigned k = 2 * in_group + (i & 1u) + (i < 4 ? 0 : 8);
      tile.a[row][k] = decode(static_cast<std::uint16_t>(from.a[i / 2] >> (16 * (i & 1u))));
    }
    for (unsigned i = 0; i < 4; ++i) {  // b0 to b3
      const unsigned k = 2 * in_group + (i & 1u) + (i < 2 ? 0 : 8);
      tile.b[k][group] = decode(static_cast<std::uint16_t>(from.b[i / 2] >> (16 * (i & 1u))));
    }
  }
  tile.multiply(lanes);
}

// m16n8k8 of tf32: the lower 13 bits of a register are not looked at.
inline void multiply_tf32(const Lanes& lanes) {
  WarpTile<8> tile;
  const auto decode = [](std::uint32_t bits) { return float_of(bits & 0xffffe000u); };
  for (unsigned lane = 0; lane < 32; ++lane) {
    const auto& from = lanes.of<Fragments>(lane);
    const unsigned group = lane / 4, in_group = lane % 4;
    for (unsigned i = 0; i < 4; ++i) {  // a0, a2 in row groupID; a2, a3 four columns on
      tile.a[i % 2 == 0 ? group : group + 8][i < 2 ? in_group : in_group + 4] = decode(from.a[i]);
    }
    for (unsigned i = 0; i < 2; ++i) tile.b[in_group + 4 * i][group] = decode(from.b[i]);
  }
  tile.multiply(lanes);
}

inline void mma(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const char* name,
                void (*multiply)(const Lanes&), Site site) {
  Fragments mine;
  std::memcpy(mine.d, d, sizeof mine.d);
  std::memcpy(mine.a, a, sizeof mine.a);
  std::memcpy(mine.b, b, sizeof mine.b);
  collective(0xffffffffu, name, Participation::aligned, site, &mine, multiply);
  std::memcpy(d, mine.d, sizeof mine.d);
}

// cvt.rna.tf32.f32: to the nearest of 10 mantissa bits, ties away from zero.
inline std::uint32_t round_to_tf32(float value) {
  const std::uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffffffu;
  if ((bits & 0x7fffffffu) == 0x7f800000u) return bits;
  return (bits + 0x1000u) & 0xffffe000u;
}

}  // namespace frcnn::simt
