// Packing on the host and on the device, to the same bytes. On the device a block moves 32 rows of 32 columns
// through shared memory: it reads along whichever of the two lies closer together in the published tensor and
// writes along the packed rows. 4 KB of shared memory; bound by memory.
#include "pack_weights.h"

#include <cstring>

#include "graph/dtype.h"
#include "launch.h"
#include "storage.h"

namespace frcnn::cuda {
namespace {

constexpr int kTile = 32, kThreads = 256;

__host__ __device__ bool holds_weight(const PackedWeights& w, int row, int tap, int channel) {
  return row < w.outputs && tap < w.taps && channel < w.channels;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    pack_weights_kernel(const float* published, T* packed, __grid_constant__ const PackedWeights w,
                        bool along_rows) {
  SharedCarver carver;
  float* const tile = carver.take<float>(kTile * (kTile + 1));  // [row][column]
  const int lane = threadIdx.x % kTile, warp = threadIdx.x / kTile, warps = kThreads / kTile;
  const int first_row = blockIdx.y * kTile, first_column = blockIdx.x * kTile;
  for (int i = warp; i < kTile; i += warps) {
    const int row = along_rows ? lane : i, column = along_rows ? i : lane;
    const int tap = (first_column + column) / w.tap_columns,
              channel = (first_column + column) % w.tap_columns;
    const bool there = holds_weight(w, first_row + row, tap, channel);
    tile[row * (kTile + 1) + column] =
        there ? published[w.published.index(first_row + row, tap, channel)] : 0.0f;
  }
  __syncthreads();
  for (int row = warp; row < kTile; row += warps) {
    if (first_row + row < w.rows && first_column + lane < w.columns)
      packed[std::int64_t{first_row + row} * w.columns + first_column + lane] =
          from_float<T>(tile[row * (kTile + 1) + lane]);
  }
}

void pack_on_host(const PackedWeights& w, DType stored, const float* published, std::byte* packed) {
  const auto element = static_cast<std::int64_t>(size_of(stored));
  std::memset(packed, 0, static_cast<std::size_t>(std::int64_t{w.rows} * w.columns * element));
  for (int o = 0; o < w.outputs; ++o)
    for (int tap = 0; tap < w.taps; ++tap)
      for (int c = 0; c < w.channels; ++c) {
        const std::int64_t at = std::int64_t{o} * w.columns + std::int64_t{tap} * w.tap_columns + c;
        from_f32(published + w.published.index(o, tap, c), 1, stored, packed + at * element);
      }
}

}  // namespace

WeightPacking weight_packing(int input, const PackedWeights& weights, DType stored,
                             const std::string& layout) {
  WeightPacking packing;
  packing.input = input;
  packing.layout = layout;
  packing.bytes =
      static_cast<std::size_t>(weights.rows) * static_cast<std::size_t>(weights.columns) * size_of(stored);
  packing.pack = [=](const TensorView& published, void* packed) {
    pack_on_host(weights, stored, published.as<const float>(), static_cast<std::byte*>(packed));
  };
  with_storage(stored, "pack_weights", [&](auto type) {
    using T = typename decltype(type)::type;
    packing.pack_on_device = [=](const TensorView& published, void* packed, void* stream) {
      if (weights.rows == 0 || weights.columns == 0) return;
      const dim3 grid(static_cast<unsigned>((weights.columns + kTile - 1) / kTile),
                      static_cast<unsigned>((weights.rows + kTile - 1) / kTile));
      const bool along_rows = weights.published.output.stride < weights.published.channel.stride;
      launch(pack_weights_kernel<T>, grid, dim3(kThreads),
             SharedSize().add<float>(kTile * (kTile + 1)).bytes(), static_cast<cudaStream_t>(stream),
             published.as<const float>(), static_cast<T*>(packed), weights, along_rows);
    };
  });
  return packing;
}

}  // namespace frcnn::cuda
