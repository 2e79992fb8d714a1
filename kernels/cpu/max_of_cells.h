// The maximum over a rectangle of a map's cells, which is what both poolings take. A cell's channels lie
// together, so it runs over vectors of channels. A maximum is one of its numbers, so in bf16 nothing is
// rounded.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "cpu/multiversion.h"
#include "cpu/storage.h"

namespace frcnn::cpu {

template <class T>
struct Cells {
  const T* first;              // the rectangle's first cell
  std::int64_t rows, columns;  // at least one of each
  std::int64_t row_step;       // elements from one row of the map to the next
  std::int64_t channels;
};

// Enough accumulators to fill the vector registers, few enough to stay in them.
inline constexpr std::int64_t max_lanes = 32;

// dst[0..n) = the largest of the cells' channels from `from` on. Strictly larger wins, so a NaN never does.
template <bool whole, class T>
FRCNN_INLINE void max_of_lanes(const Cells<T>& cells, std::int64_t from, std::int64_t n, T* dst) {
  const float lowest = to_float(from_float<T>(-std::numeric_limits<float>::max()));  // minus infinity in bf16
  float best[max_lanes];
  for (float& b : best) b = lowest;
  if constexpr (whole) n = max_lanes;
  for (std::int64_t y = 0; y < cells.rows; ++y) {
    const T* cell = cells.first + y * cells.row_step + from;
    for (std::int64_t x = 0; x < cells.columns; ++x, cell += cells.channels) {
      for (std::int64_t c = 0; c < n; ++c) {
        const float next = to_float(cell[c]);
        best[c] = next > best[c] ? next : best[c];
      }
    }
  }
  for (std::int64_t c = 0; c < n; ++c) dst[c] = narrowed<T>(best[c]);
}

template <class T>
FRCNN_INLINE void max_of_cells(const Cells<T>& cells, T* dst) {
  std::int64_t c = 0;
  for (; c + max_lanes <= cells.channels; c += max_lanes) max_of_lanes<true>(cells, c, max_lanes, dst + c);
  if (c < cells.channels) max_of_lanes<false>(cells, c, cells.channels - c, dst + c);
}

}  // namespace frcnn::cpu
