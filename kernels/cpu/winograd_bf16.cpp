// Winograd F(2x2, 3x3) in bf16: 16 multiplications for four results instead of 36 (Lavin and Gray, arXiv
// 1509.09308).
//
//   Y = At [ sum over channels of (G g Gt) * (Bt d B) ] A
//
// d is a 4x4 window of the source, Y the 2x2 results under it. Bt has only 0 and +-1 and is applied in fp32;
// its result is rounded to bf16, as the transformed weight is: that is what this form loses against the
// direct one, whose source is multiplied as stored. Sums over channels are fp32.
//
// A thread takes a block of tiles at a time, transforms it (V: 16 matrices of tiles x channels), and for
// every panel of 64 outputs multiplies the 16 matrices with the weight's (U) and transforms the products (M)
// back. A block is as large as its V and M fit into the second-level cache; U streams through it.
#include "cpu/winograd_bf16.h"

#include <algorithm>
#include <cstring>

#include "cpu/carve.h"
#include "cpu/parallel.h"
#include "cpu/storage.h"

#if defined(__x86_64__)
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // in GCC 12's own header
#endif
#define FRCNN_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))
#endif

namespace frcnn::cpu::winograd_bf16 {

namespace {

constexpr std::int64_t positions = 16;  // of a tile
constexpr std::int64_t panel = 64;      // outputs that are multiplied together: four vectors
constexpr std::int64_t rows = 6;        // tiles that are: 24 of 32 registers hold sums

std::int64_t panels(const Problem& p) { return (p.outputs + panel - 1) / panel; }
std::int64_t tile_rows(const Problem& p) { return (p.out_height + 1) / 2; }
std::int64_t tile_columns(const Problem& p) { return (p.out_width + 1) / 2; }
std::int64_t tiles(const Problem& p) { return p.images * tile_rows(p) * tile_columns(p); }

// Tiles of a block: V of at most half a MiB.
std::int64_t block_tiles(const Problem& p) {
  const std::int64_t fit = (std::int64_t{512} << 10) / (positions * p.channels * 2);
  return std::clamp<std::int64_t>(fit / rows * rows, rows, 10 * rows);
}

// What a thread works in.
struct Scratch {
  std::uint16_t* v;      // [position][tile of the block][channel]
  float* m;              // [position][tile of the block][output of a panel]
  std::uint16_t* patch;  // a window that reaches over the map's edge
  std::size_t bytes;

  explicit Scratch(const Problem& p, void* base = nullptr) {
    Carver carver(base);
    v = carver.take<std::uint16_t>(positions * block_tiles(p) * p.channels);
    m = carver.take<float>(positions * block_tiles(p) * panel);
    patch = carver.take<std::uint16_t>(positions * p.channels);
    bytes = carver.used();
  }
};

// One panel's share of the weight, U[position][channel / 2][output][channel % 2], from 64 rows of the
// published one.
void pack_panel(const Problem& p, const float* published, std::int64_t first, Bf16* packed) {
  const std::int64_t count = std::min(panel, p.outputs - first), pairs = p.channels / 2;
  float g[9][2 * panel], half[4][3][2 * panel];
  std::memset(g, 0, sizeof g);  // outputs that only fill up the last panel
  for (std::int64_t pair = 0; pair < pairs; ++pair) {
    for (std::int64_t o = 0; o < count; ++o) {
      const float* from = published + ((first + o) * p.channels + 2 * pair) * 9;
      for (int k = 0; k < 9; ++k) {
        g[k][2 * o] = from[k];
        g[k][2 * o + 1] = from[9 + k];
      }
    }
    for (int column = 0; column < 3; ++column) {
      const float *g0 = g[column], *g1 = g[3 + column], *g2 = g[6 + column];
      for (int i = 0; i < 2 * panel; ++i) {
        half[0][column][i] = g0[i];
        half[1][column][i] = 0.5f * (g0[i] + g1[i] + g2[i]);
        half[2][column][i] = 0.5f * (g0[i] - g1[i] + g2[i]);
        half[3][column][i] = g2[i];
      }
    }
    for (std::int64_t row = 0; row < 4; ++row) {
      const float *h0 = half[row][0], *h1 = half[row][1], *h2 = half[row][2];
      Bf16* to[4];
      for (std::int64_t column = 0; column < 4; ++column)
        to[column] = packed + ((row * 4 + column) * pairs + pair) * 2 * panel;
      for (int i = 0; i < 2 * panel; ++i) {
        to[0][i] = from_float<Bf16>(h0[i]);
        to[1][i] = from_float<Bf16>(0.5f * (h0[i] + h1[i] + h2[i]));
        to[2][i] = from_float<Bf16>(0.5f * (h0[i] - h1[i] + h2[i]));
        to[3][i] = from_float<Bf16>(h2[i]);
      }
    }
  }
}

#if defined(__x86_64__)

FRCNN_AVX512_BF16 inline __m512 widened(const std::uint16_t* from) {
  const __m256i narrow = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
}

FRCNN_AVX512_BF16 inline void narrow(__m512 value, std::uint16_t* to) {
  const __m256bh bits = _mm512_cvtneps_pbh(value);
  std::memcpy(to, &bits, sizeof bits);
}

// Bt d B of one tile. The window's corner is at `src`, its rows `row_stride` elements apart; V's positions
// are `position_stride` apart.
FRCNN_AVX512_BF16 void transform_window(const std::uint16_t* src, std::int64_t row_stride,
                                        std::int64_t channels, std::uint16_t* v,
                                        std::int64_t position_stride) {
  for (std::int64_t c = 0; c < channels; c += 16) {
    __m512 half[4][4];
#pragma GCC unroll 4
    for (int x = 0; x < 4; ++x) {
      const std::uint16_t* at = src + x * channels + c;
      const __m512 d0 = widened(at), d1 = widened(at + row_stride), d2 = widened(at + 2 * row_stride),
                   d3 = widened(at + 3 * row_stride);
      half[0][x] = _mm512_sub_ps(d0, d2);
      half[1][x] = _mm512_add_ps(d1, d2);
      half[2][x] = _mm512_sub_ps(d2, d1);
      half[3][x] = _mm512_sub_ps(d1, d3);
    }
#pragma GCC unroll 4
    for (int y = 0; y < 4; ++y) {
      std::uint16_t* to = v + 4 * y * position_stride + c;
      narrow(_mm512_sub_ps(half[y][0], half[y][2]), to);
      narrow(_mm512_add_ps(half[y][1], half[y][2]), to + position_stride);
      narrow(_mm512_sub_ps(half[y][2], half[y][1]), to + 2 * position_stride);
      narrow(_mm512_sub_ps(half[y][1], half[y][3]), to + 3 * position_stride);
    }
  }
}

// Six rows of V, `channels` apart, times one position of a panel.
FRCNN_AVX512_BF16 void multiply(const std::uint16_t* v, std::int64_t channels, const std::uint16_t* u,
                                float* m) {
  __m512 sum[rows][4];
#pragma GCC unroll 6
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) sum[r][j] = _mm512_setzero_ps();
  for (std::int64_t c = 0; c < channels; c += 2, u += 2 * panel) {
    __m512bh weight[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) std::memcpy(&weight[j], u + 32 * j, sizeof weight[j]);
#pragma GCC unroll 6
    for (int r = 0; r < rows; ++r) {
      int pair;
      std::memcpy(&pair, v + r * channels + c, sizeof pair);
      const __m512i repeated = _mm512_set1_epi32(pair);
      __m512bh source;
      std::memcpy(&source, &repeated, sizeof source);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) sum[r][j] = _mm512_dpbf16_ps(sum[r][j], source, weight[j]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) _mm512_store_ps(m + r * panel + 16 * j, sum[r][j]);
}

struct Result {
  const float* bias;
  bool relu;
  float scale;
  std::uint16_t* dst;  // the tile's first result
  std::int64_t row_stride, pixel_stride;
  bool second_row, second_column;  // which of the 2x2 lie in the map
  std::int64_t outputs;            // of this panel that exist, a multiple of 16
};

// At M A of one tile and panel, and the epilogue. M's positions are `position_stride` apart.
FRCNN_AVX512_BF16 void transform_products(const float* m, std::int64_t position_stride, const Result& r) {
  const __m512 zero = _mm512_setzero_ps(), scale = _mm512_set1_ps(r.scale);
  for (std::int64_t o = 0; o < r.outputs; o += 16) {
    __m512 half[2][4];
#pragma GCC unroll 4
    for (int x = 0; x < 4; ++x) {
      const float* at = m + x * position_stride + o;
      const __m512 m0 = _mm512_load_ps(at), m1 = _mm512_load_ps(at + 4 * position_stride),
                   m2 = _mm512_load_ps(at + 8 * position_stride),
                   m3 = _mm512_load_ps(at + 12 * position_stride);
      half[0][x] = _mm512_add_ps(_mm512_add_ps(m0, m1), m2);
      half[1][x] = _mm512_sub_ps(_mm512_sub_ps(m1, m2), m3);
    }
    const __m512 bias = _mm512_loadu_ps(r.bias + o);
#pragma GCC unroll 2
    for (int y = 0; y < 2; ++y) {
      __m512 y0 = _mm512_add_ps(_mm512_add_ps(_mm512_add_ps(half[y][0], half[y][1]), half[y][2]), bias);
      __m512 y1 = _mm512_add_ps(_mm512_sub_ps(_mm512_sub_ps(half[y][1], half[y][2]), half[y][3]), bias);
      if (r.relu) {
        y0 = _mm512_max_ps(zero, y0);  // a NaN stays one
        y1 = _mm512_max_ps(zero, y1);
      }
      if (r.scale != 1.0f) {
        y0 = _mm512_mul_ps(y0, scale);
        y1 = _mm512_mul_ps(y1, scale);
      }
      if (y == 1 && !r.second_row) break;
      std::uint16_t* to = r.dst + y * r.row_stride + o;
      narrow(y0, to);
      if (r.second_column) narrow(y1, to + r.pixel_stride);
    }
  }
}

struct Tile {
  std::int64_t image, y, x;  // of its first result
};

Tile tile_at(const Problem& p, std::int64_t index) {
  const std::int64_t columns = tile_columns(p), in_image = tile_rows(p) * columns;
  return {index / in_image, index % in_image / columns * 2, index % columns * 2};
}

// The tile's window, zeros around the map included.
void copy_window(const Problem& p, const std::uint16_t* src, const Tile& t, std::uint16_t* patch) {
  const auto pixel = static_cast<std::size_t>(p.channels) * 2;
  for (std::int64_t i = 0; i < 4; ++i) {
    for (std::int64_t j = 0; j < 4; ++j, patch += p.channels) {
      const std::int64_t y = t.y - p.pad + i, x = t.x - p.pad + j;
      if (y < 0 || y >= p.height || x < 0 || x >= p.width)
        std::memset(patch, 0, pixel);
      else
        std::memcpy(patch, src + ((t.image * p.height + y) * p.width + x) * p.channels, pixel);
    }
  }
}

void transform_block(const Problem& p, const std::uint16_t* src, std::int64_t first, std::int64_t count,
                     std::uint16_t* v, std::uint16_t* patch) {
  const std::int64_t position_stride = block_tiles(p) * p.channels;
  for (std::int64_t i = 0; i < count; ++i) {
    const Tile t = tile_at(p, first + i);
    const std::int64_t y = t.y - p.pad, x = t.x - p.pad;
    if (y >= 0 && x >= 0 && y + 4 <= p.height && x + 4 <= p.width) {
      transform_window(src + ((t.image * p.height + y) * p.width + x) * p.channels, p.width * p.channels,
                       p.channels, v + i * p.channels, position_stride);
    } else {
      copy_window(p, src, t, patch);
      transform_window(patch, 4 * p.channels, p.channels, v + i * p.channels, position_stride);
    }
  }
}

// Tiles [first, first + count), at most a block.
void run_block(const Problem& p, const Arguments& a, std::int64_t first, std::int64_t count,
               const Scratch& scratch) {
  std::uint16_t* const v = scratch.v;
  float* const m = scratch.m;
  transform_block(p, a.src, first, count, v, scratch.patch);
  const std::int64_t block = block_tiles(p), u_size = p.channels * panel;
  for (std::int64_t o = 0; o < panels(p); ++o) {
    const std::uint16_t* u = static_cast<const std::uint16_t*>(a.packed) + o * positions * u_size;
    for (std::int64_t at = 0; at < positions; ++at) {
      // Rows beyond `count` hold what an earlier block left there; their products are not read.
      for (std::int64_t r = 0; r < count; r += rows)
        multiply(v + (at * block + r) * p.channels, p.channels, u + at * u_size,
                 m + (at * block + r) * panel);
    }
    for (std::int64_t i = 0; i < count; ++i) {
      const Tile t = tile_at(p, first + i);
      transform_products(
          m + i * panel, block * panel,
          {a.bias + o * panel, p.epilogue.relu, p.epilogue.scale,
           a.dst + ((t.image * p.out_height + t.y) * p.out_width + t.x) * p.outputs + o * panel,
           p.out_width * p.outputs, p.outputs, t.y + 1 < p.out_height, t.x + 1 < p.out_width,
           std::min(panel, p.outputs - o * panel)});
    }
  }
}

#endif

}  // namespace

bool pays(const Problem& p) {
#if defined(__x86_64__)
  return p.channels >= 64 && p.channels % 16 == 0 && p.outputs >= 64 && p.outputs % 16 == 0 && tiles(p) >= 96;
#else
  (void)p;
  return false;
#endif
}

std::size_t packed_bytes(const Problem& p) {
  return static_cast<std::size_t>(panels(p) * positions * p.channels * panel * 2);
}

void pack(const Problem& p, const float* published, int threads, void* packed) {
  parallel_for(panels(p), threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t o = begin; o < end; ++o)
      pack_panel(p, published, o * panel, static_cast<Bf16*>(packed) + o * positions * p.channels * panel);
  });
}

std::size_t workspace_bytes(const Problem& p, int threads) {
  return Scratch(p).bytes * static_cast<std::size_t>(std::max(threads, 1));
}

void run(const Problem& p, const Arguments& arguments, int threads) {
#if defined(__x86_64__)
  const std::int64_t all = tiles(p), block = block_tiles(p), blocks = (all + block - 1) / block;
  parallel_for(blocks, threads, [&](std::int64_t begin, std::int64_t end, int chunk) {
    const std::size_t bytes = Scratch(p).bytes;
    const Scratch scratch(
        p, static_cast<std::byte*>(arguments.workspace) + static_cast<std::size_t>(chunk) * bytes);
    for (std::int64_t b = begin; b < end; ++b)
      run_block(p, arguments, b * block, std::min(block, all - b * block), scratch);
  });
#else
  (void)p, (void)arguments, (void)threads;
#endif
}

}  // namespace frcnn::cpu::winograd_bf16
