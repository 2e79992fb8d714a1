// The implicit-GEMM kernel and its launcher.
//
// A block of 8 warps makes a tile of rows x columns. k goes by in steps of 64 bytes: one of four stages is
// multiplied while the others are filled. Rows of the shared tiles are 80 bytes apart, so that the eight rows
// of an ldmatrix lie in different banks. Weights come as cp.async copies, the source by one of two gathers:
// `vector` copies 16 bytes of channels of one tap, as cp.async too (channels a multiple of 16 bytes);
// `scalar` takes single elements of k = (tap, channel) run together, for all other counts, by loads and
// stores that each thread waits for, so nothing of the source is in flight; first layers have a kernel of
// their own (first_conv.cu). When the steps end, the sums pass through shared memory so that rows are written
// whole, with bias, ReLU, factor and, where asked, the maximum of 2x2 neighbours: then rows are numbered so
// that the four pixels of a window are neighbours. Split along k, blocks write their sums to the workspace
// and a second kernel adds them in order.
//
// Shared memory: 4 (rows + columns) 80 bytes + 12 rows. Bound by tensor cores for wide layers, by L2 for
// narrow ones.
#include "implicit_gemm.h"

#include <cfloat>
#include <limits>
#include <string>
#include <type_traits>

#include "epilogue.h"
#include "launch.h"
#include "mma.h"
#include "pack_weights.h"
#include "storage.h"

namespace frcnn::cuda {
namespace {

constexpr int kThreads = 256, kWarps = 8, kStages = gemm_stages, kStepBytes = 64,
              kPitchBytes = gemm_pitch_bytes, kColumnPadding = 128;

struct Params {
  ImplicitGemm g;
  int rows = 0;   // of the product; four per pooled output pixel when pooling
  int steps = 0;  // of k, all splits together
  int steps_per_split = 0;
  int pooled_h = 0, pooled_w = 0;
  bool pool = false;
  DType stored = DType::f32;  // of dst
  const void* src = nullptr;
  const void* weight = nullptr;
  const float* bias = nullptr;
  void* dst = nullptr;
  float* parts = nullptr;  // [splits][rows][outputs], or null
};

struct Pixel {
  int image, y, x;  // of the convolution's output
  bool inside;
};

__device__ __forceinline__ Pixel pixel_of(const Params& p, int row) {
  if (!p.pool) {
    const int x = row % p.g.out_width, rest = row / p.g.out_width;
    return {rest / p.g.out_height, rest % p.g.out_height, x, row < p.rows};
  }
  const int window = row / 4, px = window % p.pooled_w, rest = window / p.pooled_w;
  const int y = rest % p.pooled_h * 2 + row % 4 / 2, x = px * 2 + row % 2;
  return {rest / p.pooled_h, y, x, row < p.rows && y < p.g.out_height && x < p.g.out_width};
}

// Where a row's patch begins; y is far outside for rows that make nothing.
struct Patch {
  int image, y, x;
};

template <class T>
__device__ __forceinline__ const T* source_at(const Params& p, const Patch& patch, int r, int s) {
  int y = patch.y + r, x = patch.x + s;
  if (p.g.spread > 1) {
    if (y < 0 || x < 0 || y % p.g.spread != 0 || x % p.g.spread != 0) return nullptr;
    y /= p.g.spread;
    x /= p.g.spread;
  }
  if (y < 0 || y >= p.g.height || x < 0 || x >= p.g.width) return nullptr;
  return static_cast<const T*>(p.src) +
         ((std::int64_t{patch.image} * p.g.height + y) * p.g.width + x) * p.g.channels;
}

// 16 bytes of one tap's channels per copy; each thread has fixed rows and a fixed quarter of the step.
template <class T, int rows>
struct VectorGather {
  static constexpr int each = kThreads / 4;
  static __device__ __forceinline__ void load(const Params& p, const Patch* patches, int step, T* tile) {
    constexpr int depth = kStepBytes / sizeof(T), pitch = kPitchBytes / sizeof(T), quarter = depth / 4;
    const int chunks = (p.g.channels + depth - 1) / depth, tap = step / chunks;
    const int channel = step % chunks * depth + static_cast<int>(threadIdx.x) % 4 * quarter;
    for (int row = threadIdx.x / 4; row < rows; row += each) {
      const T* from = source_at<T>(p, patches[row], tap / p.g.kernel_w, tap % p.g.kernel_w);
      if (channel >= p.g.channels) from = nullptr;
      cp_async_zfill<16>(tile + row * pitch + threadIdx.x % 4 * quarter, from ? from + channel : p.src,
                         from ? 16 : 0);
    }
  }
};

// Single elements; each thread has a fixed place in the step. Plain stores: the barrier before the step's use
// covers them.
template <class T, int rows>
struct ScalarGather {
  static __device__ __forceinline__ void load(const Params& p, const Patch* patches, int step, T* tile) {
    constexpr int depth = kStepBytes / sizeof(T), pitch = kPitchBytes / sizeof(T);
    const int at = threadIdx.x % depth, k = step * depth + at;
    const int tap = k / p.g.channels, channel = k % p.g.channels;
    const bool inside = tap < p.g.kernel_h * p.g.kernel_w;
    for (int row = threadIdx.x / depth; row < rows; row += kThreads / depth) {
      const T* from =
          inside ? source_at<T>(p, patches[row], tap / p.g.kernel_w, tap % p.g.kernel_w) : nullptr;
      tile[row * pitch + at] = from ? from[channel] : from_float<T>(0.0f);
    }
  }
};

template <class T, int columns>
__device__ __forceinline__ void load_weights(const Params& p, int first_column, int step, T* tile) {
  constexpr int depth = kStepBytes / sizeof(T), pitch = kPitchBytes / sizeof(T), quarter = depth / 4;
  for (int column = threadIdx.x / 4; column < columns; column += kThreads / 4) {
    const T* from =
        static_cast<const T*>(p.weight) + (std::int64_t{first_column + column} * p.steps + step) * depth;
    cp_async<16>(tile + column * pitch + threadIdx.x % 4 * quarter, from + threadIdx.x % 4 * quarter);
  }
}

// Result number `at` of a row or, pooled, of a window, from the sums of its rows: sum(i) is that of row i of
// four.
template <class Sum>
__device__ __forceinline__ void write(const Params& p, int row, int column, const Sum& sum) {
  if (!p.pool) {
    store_as(p.stored, p.dst, std::int64_t{row} * p.g.outputs + column,
             finish(p.g.epilogue, p.bias, column, sum(0)));
    return;
  }
  float best = -FLT_MAX;
  for (int i = 0; i < 4; ++i) {
    if (!pixel_of(p, row + i).inside) continue;
    const float v = finish(p.g.epilogue, p.bias, column, sum(i));
    best = v > best ? v : best;
  }
  store_as(p.stored, p.dst, std::int64_t{row / 4} * p.g.outputs + column, best);
}

// For how many blocks at a time there are registers. Compiled for 10.0, 3xTF32 would spill at two.
template <class Math, int rows, int columns>
constexpr int blocks_alive() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
  if (std::is_same_v<Math, Tf32x3> && rows == 128 && columns == 128) return 1;
#endif
  return 2;
}
template <class Math, int rows, int columns>
[[maybe_unused]] constexpr int kBlocksAlive = blocks_alive<Math, rows, columns>();

template <class Math, int rows, int columns, template <class, int> class Gather>
__global__ void __launch_bounds__(kThreads, kBlocksAlive<Math, rows, columns>)
    implicit_gemm_kernel(__grid_constant__ const Params p) {
  using T = typename Math::Stored;
  constexpr int pitch = kPitchBytes / sizeof(T);
  constexpr int warps_down = rows == 128 && columns == 64 ? 4 : 2, warps_across = kWarps / warps_down;
  constexpr int warp_rows = rows / warps_down, warp_columns = columns / warps_across;
  SharedCarver carver;
  T* const tile_a = carver.take<T>(kStages * rows * pitch);
  T* const tile_b = carver.take<T>(kStages * columns * pitch);
  Patch* const patches = carver.take<Patch>(rows);
  const int thread = threadIdx.x, warp = thread / 32;
  const int first_row = blockIdx.x * rows, first_column = blockIdx.y * columns;
  const int first_step = blockIdx.z * p.steps_per_split;
  const int steps = min(p.steps - first_step, p.steps_per_split);

  for (int row = thread; row < rows; row += kThreads) {
    const Pixel pixel = pixel_of(p, first_row + row);
    patches[row] = {pixel.image, pixel.inside ? pixel.y * p.g.stride - p.g.pad_h : -(1 << 29),
                    pixel.x * p.g.stride - p.g.pad_w};
  }
  __syncthreads();
  const auto load = [&](int step) {
    const int stage = step % kStages;
    Gather<T, rows>::load(p, patches, first_step + step, tile_a + stage * rows * pitch);
    load_weights<T, columns>(p, first_column, first_step + step, tile_b + stage * columns * pitch);
  };
  for (int step = 0; step < kStages - 1; ++step) {
    if (step < steps) load(step);
    cp_async_commit_group();
  }
  WarpTile<Math, warp_rows, warp_columns> sums;
  const int warp_row = warp % warps_down * warp_rows, warp_column = warp / warps_down * warp_columns;
  for (int step = 0; step < steps; ++step) {
    cp_async_wait_group<kStages - 2>();
    __syncthreads();  // everybody's copies are there, and nobody reads the stage loaded next
    if (step + kStages - 1 < steps) load(step + kStages - 1);
    cp_async_commit_group();
    const T* const a = tile_a + (step % kStages * rows + warp_row) * pitch;
    const T* const b = tile_b + (step % kStages * columns + warp_column) * pitch;
#pragma unroll
    for (int half_step = 0; half_step < 2; ++half_step)
      sums.multiply(a + half_step * sums.step, b + half_step * sums.step, pitch);
  }
  cp_async_wait_all();
  __syncthreads();  // the tiles' memory is free

  constexpr int out_pitch = columns + 4;
  SharedCarver anew;
  float* const out = anew.take<float>(rows * out_pitch);
  sums.for_each(
      [&](int row, int column, float v) { out[(warp_row + row) * out_pitch + warp_column + column] = v; });
  __syncthreads();
  const int window = p.pool && !p.parts ? 4 : 1;
  for (int i = thread; i < rows / window * columns; i += kThreads) {
    const int row = i / columns * window, column = i % columns;
    if (first_row + row >= p.rows || first_column + column >= p.g.outputs) continue;
    if (p.parts) {
      p.parts[(std::int64_t{blockIdx.z} * p.rows + first_row + row) * p.g.outputs + first_column + column] =
          out[row * out_pitch + column];
    } else {
      write(p, first_row + row, first_column + column,
            [&](int k) { return out[(row + k) * out_pitch + column]; });
    }
  }
}

// Adds the parts of a split product in order. One thread, one result; bound by reading the parts.
__global__ void __launch_bounds__(kThreads) add_parts_kernel(__grid_constant__ const Params p, int splits) {
  const int window = p.pool ? 4 : 1;
  const std::int64_t n = std::int64_t{p.rows / window} * p.g.outputs,
                     step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
    const int row = static_cast<int>(i / p.g.outputs) * window, column = static_cast<int>(i % p.g.outputs);
    write(p, row, column, [&](int k) {
      float sum = 0.0f;
      for (int s = 0; s < splits; ++s)
        sum += p.parts[(std::int64_t{s} * p.rows + row + k) * p.g.outputs + column];
      return sum;
    });
  }
}

template <class Math, int rows, int columns>
void launch_tile(const Params& p, const GemmChoice& choice, bool vector, cudaStream_t stream) {
  using T = typename Math::Stored;
  constexpr std::size_t tiles = SharedSize()
                                    .add<T>(kStages * rows * kPitchBytes / sizeof(T))
                                    .template add<T>(kStages * columns * kPitchBytes / sizeof(T))
                                    .template add<Patch>(rows)
                                    .bytes();
  constexpr std::size_t out = SharedSize().add<float>(rows * (columns + 4)).bytes();
  static_assert(tiles >= out && tiles == gemm_shared_bytes({rows, columns}),
                "choose_gemm counts as this does");
  const auto kernel = vector ? implicit_gemm_kernel<Math, rows, columns, VectorGather>
                             : implicit_gemm_kernel<Math, rows, columns, ScalarGather>;
  const dim3 grid(static_cast<unsigned>((p.rows + rows - 1) / rows),
                  static_cast<unsigned>((p.g.outputs + columns - 1) / columns),
                  static_cast<unsigned>(choice.splits));
  launch(kernel, grid, dim3(kThreads), tiles, stream, p);
  if (choice.splits > 1)
    launch(add_parts_kernel, blocks_for(std::int64_t{p.rows} * p.g.outputs, kThreads), dim3(kThreads), 0,
           stream, p, choice.splits);
}

template <class Math>
void launch_gemm(const Params& p, const GemmChoice& choice, bool vector, cudaStream_t stream) {
  static_assert(gemm_tiles.size() == 3, "every tile of the table is instantiated here");
  constexpr auto t = gemm_tiles;
  switch (choice.tile) {
    case 0:
      return launch_tile<Math, t[0].rows, t[0].columns>(p, choice, vector, stream);
    case 1:
      return launch_tile<Math, t[1].rows, t[1].columns>(p, choice, vector, stream);
    default:
      return launch_tile<Math, t[2].rows, t[2].columns>(p, choice, vector, stream);
  }
}

using Launcher = void (*)(const Params&, const GemmChoice&, bool, cudaStream_t);

struct Arithmetic {
  Launcher launch;
  const char* name;
};

Arithmetic arithmetic_of(DType stored, Precision precision) {
  if (stored == DType::f16) return {launch_gemm<Fp16>, Fp16::name};
  if (stored == DType::bf16) return {launch_gemm<Bf16>, Bf16::name};
  if (precision == Precision::tf32x3) return {launch_gemm<Tf32x3>, Tf32x3::name};
  // Layers that stay in fp32 in a 16-bit program (first inputs, say) keep their accuracy.
  return precision == Precision::tf32 ? Arithmetic{launch_gemm<Tf32>, Tf32::name}
                                      : Arithmetic{launch_gemm<Fp32>, Fp32::name};
}

}  // namespace

Prepared prepare_implicit_gemm(const ImplicitGemm& gemm, const KernelSpec& spec, const Settings& settings,
                               const PublishedLayout& published, const std::string& layout_name,
                               const GemmChoice* forced) {
  const DType stored = spec.in[0].dtype;
  with_storage(stored, "implicit_gemm", [](auto) {});
  with_storage(spec.out[0].dtype, "implicit_gemm", [](auto) {});
  const auto element = static_cast<int>(size_of(stored)), depth = kStepBytes / element;
  const bool vector = !gemm.dense && gemm.channels % (16 / element) == 0;
  const int taps = gemm.kernel_h * gemm.kernel_w;
  Params p;
  p.g = gemm;
  p.pool = gemm.epilogue.max_pool_2x2;
  p.stored = spec.out[0].dtype;
  p.pooled_h = (gemm.out_height + 1) / 2;
  p.pooled_w = (gemm.out_width + 1) / 2;
  // Steps, columns and places within a split are counted in 32 bits; a step's last columns may be padding.
  const std::int64_t summed = std::int64_t{taps} * ((gemm.channels + depth - 1) / depth) * depth;
  if (summed > std::numeric_limits<int>::max() / 2)
    throw Error(ErrorCode::unsupported,
                "implicit_gemm: sums of " + std::to_string(summed) + " products are more than this kernel takes");
  const std::int64_t rows = p.pool ? std::int64_t{4} * gemm.batch * p.pooled_h * p.pooled_w
                                   : std::int64_t{gemm.batch} * gemm.out_height * gemm.out_width;
  if (rows > std::numeric_limits<int>::max() / 2)
    throw Error(ErrorCode::unsupported,
                "implicit_gemm: " + std::to_string(rows) + " rows are more than this kernel takes");
  checked_grid("implicit_gemm", rows,
               (gemm.outputs + std::int64_t{gemm_tiles.back().columns} - 1) / gemm_tiles.back().columns);
  p.rows = static_cast<int>(rows);
  p.steps =
      vector ? taps * ((gemm.channels + depth - 1) / depth) : (taps * gemm.channels + depth - 1) / depth;
  GemmChoice choice = forced ? *forced
                             : choose_gemm({rows, gemm.outputs, p.steps, settings.multiprocessors,
                                            settings.shared_per_block, settings.shared_per_multiprocessor});
  p.steps_per_split = (p.steps + choice.splits - 1) / choice.splits;
  choice.splits = (p.steps + p.steps_per_split - 1) / p.steps_per_split;  // no split without a step
  const Arithmetic arithmetic = arithmetic_of(stored, settings.precision);
  const GemmTile tile = gemm_tiles[static_cast<std::size_t>(choice.tile)];

  Prepared prepared;
  prepared.implementation = std::string("gemm:") + arithmetic.name + ":" + std::to_string(tile.rows) + "x" +
                            std::to_string(tile.columns) + (vector ? ":vector" : ":scalar") +
                            (choice.splits > 1 ? ":split" + std::to_string(choice.splits) : "");
  if (choice.splits > 1)
    prepared.workspace_bytes = static_cast<std::size_t>(choice.splits) * static_cast<std::size_t>(rows) *
                               static_cast<std::size_t>(gemm.outputs) * sizeof(float);

  PackedWeights packed;
  packed.published = published;
  packed.outputs = gemm.outputs;
  packed.taps = taps;
  packed.channels = gemm.channels;
  packed.rows = (gemm.outputs + kColumnPadding - 1) / kColumnPadding * kColumnPadding;
  packed.columns = p.steps * depth;
  packed.tap_columns = vector ? (gemm.channels + depth - 1) / depth * depth : gemm.channels;
  const std::string name = std::string("gemm:") + std::string(name_of(stored)) +
                           (vector ? ":vector:" : ":scalar:") + std::to_string(gemm.channels) + ":" +
                           std::to_string(taps) + layout_name;
  prepared.packings.push_back(weight_packing(1, packed, stored, name));
  prepared.run = [p, choice, vector, launcher = arithmetic.launch](const KernelArgs& args) {
    if (p.rows == 0 || p.g.outputs == 0) return;
    Params bound = p;
    bound.src = args.in[0].data;
    bound.weight = args.in[1].data;
    bound.bias = args.in.size() > 2 ? args.in[2].as<const float>() : nullptr;
    bound.dst = args.out[0].data;
    bound.parts = choice.splits > 1 ? static_cast<float*>(args.workspace) : nullptr;
    launcher(bound, choice, vector, static_cast<cudaStream_t>(args.stream));
  };
  return prepared;
}

}  // namespace frcnn::cuda
