// The weight-gradient kernels and their launcher.
//
// A block of 8 warps makes a tile of rows x columns. Both operands lie with k outermost in memory (a pixel's
// channels are neighbours), and so they lie in shared memory: 16 pixels a step, four steps in flight as
// cp.async copies, 16 bytes each where the channels allow it and 4 where not. Rows of a shared tile are 8
// floats longer than the tile, so that the fragments' loads meet no bank twice. Split along k, blocks write
// their sums to the workspace and a second kernel adds them in order. The bias's gradient, a sum over pixels,
// is made beside it in chunks, which are added in order.
//
// Shared memory: 4 * 16 (rows + columns + 16) 4 bytes. Bound by tensor cores where there are many channels,
// by the gathering of taps otherwise.
#include "weight_gradient.h"

#include <algorithm>
#include <limits>
#include <string>

#include "launch.h"
#include "mma_by_pixel.h"
#include "storage.h"

namespace frcnn::cuda {
namespace {

constexpr int kThreads = 256, kWarps = 8, kStages = 4, kDepth = 16, kPadding = 8;
constexpr std::int64_t kMostPartsBytes = 32 << 20;
constexpr int kBiasChannels = 32, kBiasRows = 8, kBiasPixels = 512;  // of one block of the bias's gradient

struct Params {
  WeightGradient g;
  int pixels = 0, columns = 0;
  int steps = 0, steps_per_split = 0;          // of k
  bool wide_source = false, wide_top = false;  // channels are a multiple of 4
  const float* src = nullptr;
  const float* d_dst = nullptr;
  float* d_weight = nullptr;
  float* parts = nullptr;  // [splits][outputs][columns], or null
};

__device__ __forceinline__ void put(float* to, float value, bool accumulate) {
  *to = accumulate ? *to + value : value;
}

__device__ __forceinline__ void store(const Params& p, int row, int column, float value) {
  const int each = p.columns / p.g.inner;
  const std::int64_t at =
      std::int64_t{row} * p.columns + std::int64_t{column % p.g.inner} * each + column / p.g.inner;
  put(p.d_weight + at, value, p.g.accumulate);
}

// An output pixel that moves forward through the images.
struct Cursor {
  int image, y, x;

  __device__ __forceinline__ Cursor(const WeightGradient& g, int pixel)
      : image(pixel / g.out_width / g.out_height),
        y(pixel / g.out_width % g.out_height),
        x(pixel % g.out_width) {}
  __device__ __forceinline__ void advance(const WeightGradient& g, int by) {
    for (x += by; x >= g.out_width; x -= g.out_width) {
      if (++y < g.out_height) continue;
      y = 0;
      ++image;
    }
  }
};

// The gradient's channels [first, first + width) of one step's pixels; `each` floats a copy.
template <int width, int each>
__device__ __forceinline__ void load_top(const Params& p, int first, int step, float* tile) {
  constexpr int copies = width / each;
  const int channel = threadIdx.x % copies * each;
  for (int k = threadIdx.x / copies; k < kDepth; k += kThreads / copies) {
    const int pixel = step * kDepth + k;
    const bool there = pixel < p.pixels && first + channel < p.g.outputs;
    cp_async_zfill<4 * each>(tile + k * (width + kPadding) + channel,
                             there ? p.d_dst + std::int64_t{pixel} * p.g.outputs + first + channel : p.d_dst,
                             there ? 4 * each : 0);
  }
}

// Columns [first, first + width) of one step's pixels from the source. A thread's columns, hence its tap and
// channels, stay the same; its pixels follow each other through all steps, which are loaded in order.
template <int width, int each>
class SourceLoader {
 public:
  __device__ __forceinline__ SourceLoader(const Params& p, int first, int first_step)
      : pixel_(first_step * kDepth + static_cast<int>(threadIdx.x) / copies), cursor_(p.g, pixel_) {
    const int column = first + static_cast<int>(threadIdx.x) % copies * each, tap = column / p.g.channels;
    channel_ = column < p.columns ? column % p.g.channels : -1;
    row_ = tap / p.g.kernel_w - p.g.pad;
    column_ = tap % p.g.kernel_w - p.g.pad;
  }
  __device__ __forceinline__ void load(const Params& p, float* tile) {
    for (int k = threadIdx.x / copies; k < kDepth; k += apart) {
      const int y = cursor_.y * p.g.stride + row_, x = cursor_.x * p.g.stride + column_;
      const bool there =
          channel_ >= 0 && pixel_ < p.pixels && y >= 0 && y < p.g.height && x >= 0 && x < p.g.width;
      const std::int64_t cell = (std::int64_t{cursor_.image} * p.g.height + y) * p.g.width + x;
      cp_async_zfill<4 * each>(tile + k * (width + kPadding) + static_cast<int>(threadIdx.x) % copies * each,
                               there ? p.src + cell * p.g.channels + channel_ : p.src, there ? 4 * each : 0);
      pixel_ += apart;
      cursor_.advance(p.g, apart);
    }
  }

 private:
  static constexpr int copies = width / each, apart = kThreads / copies;
  static_assert(kDepth % apart == 0, "every thread copies the same number of pixels in each step");
  int pixel_;
  Cursor cursor_;
  int channel_, row_, column_;
};

// The tile's sums, in shared memory with rows columns + 4 floats apart.
template <class Math, int rows, int columns, int each>
__device__ __forceinline__ const float* multiply(const Params& p) {
  constexpr int pitch_a = rows + kPadding, pitch_b = columns + kPadding;
  constexpr int warps_down = rows == 128 && columns == 64 ? 4 : 2, warps_across = kWarps / warps_down;
  constexpr int warp_rows = rows / warps_down, warp_columns = columns / warps_across;
  SharedCarver carver;
  float* const tile_a = carver.take<float>(kStages * kDepth * pitch_a);
  float* const tile_b = carver.take<float>(kStages * kDepth * pitch_b);
  const int warp = threadIdx.x / 32, first_row = blockIdx.y * rows;
  const int first_step = blockIdx.z * p.steps_per_split, steps = min(p.steps - first_step, p.steps_per_split);
  SourceLoader<columns, each> source(p, blockIdx.x * columns, first_step);
  const auto load = [&](int step) {
    float* const a = tile_a + step % kStages * kDepth * pitch_a;
    if (p.wide_top) {
      load_top<rows, 4>(p, first_row, first_step + step, a);
    } else {
      load_top<rows, 1>(p, first_row, first_step + step, a);
    }
    source.load(p, tile_b + step % kStages * kDepth * pitch_b);
  };
  for (int step = 0; step < kStages - 1; ++step) {
    if (step < steps) load(step);
    cp_async_commit_group();
  }
  PixelWarpTile<Math, warp_rows, warp_columns> sums;
  const int warp_row = warp % warps_down * warp_rows, warp_column = warp / warps_down * warp_columns;
  for (int step = 0; step < steps; ++step) {
    cp_async_wait_group<kStages - 2>();
    __syncthreads();  // everybody's copies are there, and nobody reads the stage loaded next
    if (step + kStages - 1 < steps) load(step + kStages - 1);
    cp_async_commit_group();
    const float* const a = tile_a + step % kStages * kDepth * pitch_a + warp_row;
    const float* const b = tile_b + step % kStages * kDepth * pitch_b + warp_column;
#pragma unroll
    for (int k = 0; k < kDepth; k += sums.step)
      sums.multiply(a + k * pitch_a, pitch_a, b + k * pitch_b, pitch_b);
  }
  cp_async_wait_all();
  __syncthreads();  // the tiles' memory is free
  SharedCarver anew;
  float* const out = anew.take<float>(rows * (columns + 4));
  sums.for_each([&](int row, int column, float v) {
    out[(warp_row + row) * (columns + 4) + warp_column + column] = v;
  });
  __syncthreads();
  return out;
}

// blockIdx.x counts tiles of columns, so that blocks which run together write neighbouring weights.
template <class Math, int rows, int columns>
__global__ void __launch_bounds__(kThreads, 2) weight_gradient_kernel(__grid_constant__ const Params p) {
  const float* const out =
      p.wide_source ? multiply<Math, rows, columns, 4>(p) : multiply<Math, rows, columns, 1>(p);
  for (int i = threadIdx.x; i < rows * columns; i += kThreads) {
    const int row = blockIdx.y * rows + i / columns, column = blockIdx.x * columns + i % columns;
    if (row >= p.g.outputs || column >= p.columns) continue;
    const float v = out[i / columns * (columns + 4) + i % columns];
    if (p.parts) {
      p.parts[(std::int64_t{blockIdx.z} * p.g.outputs + row) * p.columns + column] = v;
    } else {
      store(p, row, column, v);
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    add_weight_parts_kernel(__grid_constant__ const Params p, int splits) {
  const std::int64_t n = std::int64_t{p.g.outputs} * p.columns, step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
    float sum = 0.0f;
    for (int s = 0; s < splits; ++s) sum += p.parts[s * n + i];
    store(p, static_cast<int>(i / p.columns), static_cast<int>(i % p.columns), sum);
  }
}

// One block sums a chunk of pixels for 32 channels: each row of threads every eighth pixel, then the rows in
// order.
__global__ void __launch_bounds__(kBiasChannels* kBiasRows)
    bias_gradient_kernel(const float* d_dst, float* chunks, int pixels, int outputs) {
  __shared__ float sums[kBiasRows][kBiasChannels];
  const int lane = threadIdx.x % kBiasChannels, row = threadIdx.x / kBiasChannels;
  const int channel = blockIdx.x * kBiasChannels + lane;
  const std::int64_t first = std::int64_t{blockIdx.y} * kBiasPixels;
  const std::int64_t end = min(first + kBiasPixels, static_cast<std::int64_t>(pixels));
  float sum = 0.0f;
  for (std::int64_t pixel = first + row; channel < outputs && pixel < end; pixel += kBiasRows)
    sum += d_dst[pixel * outputs + channel];
  sums[row][lane] = sum;
  __syncthreads();
  if (row != 0 || channel >= outputs) return;
  for (int k = 1; k < kBiasRows; ++k) sum += sums[k][lane];
  chunks[std::int64_t{blockIdx.y} * outputs + channel] = sum;
}

__global__ void __launch_bounds__(kThreads)
    add_bias_chunks_kernel(const float* chunks, float* d_bias, int count, int outputs, bool accumulate) {
  const int channel = blockIdx.x * blockDim.x + threadIdx.x;
  if (channel >= outputs) return;
  float sum = 0.0f;
  for (int k = 0; k < count; ++k) sum += chunks[std::int64_t{k} * outputs + channel];
  put(d_bias + channel, sum, accumulate);
}

template <class Math, int rows, int columns>
void launch_tile(const Params& p, const GemmChoice& choice, cudaStream_t stream) {
  const std::size_t tiles = SharedSize()
                                .add<float>(kStages * kDepth * (rows + kPadding))
                                .template add<float>(kStages * kDepth * (columns + kPadding))
                                .bytes();
  const std::size_t out = SharedSize().add<float>(rows * (columns + 4)).bytes();
  const dim3 grid(static_cast<unsigned>((p.columns + columns - 1) / columns),
                  static_cast<unsigned>((p.g.outputs + rows - 1) / rows),
                  static_cast<unsigned>(choice.splits));
  launch(weight_gradient_kernel<Math, rows, columns>, grid, dim3(kThreads), tiles > out ? tiles : out, stream,
         p);
  if (choice.splits > 1)
    launch(add_weight_parts_kernel, blocks_for(std::int64_t{p.g.outputs} * p.columns, kThreads),
           dim3(kThreads), 0, stream, p, choice.splits);
}

template <class Math>
void launch_weight_gradient(const Params& p, const GemmChoice& choice, cudaStream_t stream) {
  static_assert(gemm_tiles.size() == 3, "every tile of the table is instantiated here");
  constexpr auto t = gemm_tiles;
  switch (choice.tile) {
    case 0:
      return launch_tile<Math, t[0].rows, t[0].columns>(p, choice, stream);
    case 1:
      return launch_tile<Math, t[1].rows, t[1].columns>(p, choice, stream);
    default:
      return launch_tile<Math, t[2].rows, t[2].columns>(p, choice, stream);
  }
}

struct Arithmetic {
  void (*launch)(const Params&, const GemmChoice&, cudaStream_t);
  const char* name;
};

Arithmetic arithmetic_of(Precision precision) {
  if (precision == Precision::fp32) return {launch_weight_gradient<Fp32>, Fp32::name};
  if (precision == Precision::tf32x3) return {launch_weight_gradient<Tf32x3>, Tf32x3::name};
  return {launch_weight_gradient<Tf32>, Tf32::name};
}

void launch_bias(const KernelArgs& args, const Params& p, float* chunks) {
  const auto stream = static_cast<cudaStream_t>(args.stream);
  const int count = (p.pixels + kBiasPixels - 1) / kBiasPixels;
  if (count > 0)
    launch(bias_gradient_kernel,
           dim3(static_cast<unsigned>((p.g.outputs + kBiasChannels - 1) / kBiasChannels),
                static_cast<unsigned>(count)),
           dim3(kBiasChannels * kBiasRows), 0, stream, args.in[1].as<const float>(), chunks, p.pixels,
           p.g.outputs);
  launch(add_bias_chunks_kernel, blocks_for(p.g.outputs, kThreads), dim3(kThreads), 0, stream, chunks,
         args.out[1].as<float>(), count, p.g.outputs, p.g.accumulate);
}

}  // namespace

Prepared prepare_weight_gradient(const WeightGradient& gradient, const KernelSpec& spec,
                                 const Settings& given, const GemmChoice* forced) {
  const Settings settings = for_gradients(given);
  const std::int64_t pixels = spec.in[1].shape.elements() / std::max<std::int64_t>(gradient.outputs, 1);
  const std::int64_t columns = spec.out[0].shape.row();
  constexpr std::int64_t most = std::numeric_limits<int>::max() / 2;
  const std::int64_t chunks = (pixels + kBiasPixels - 1) / kBiasPixels;
  if (pixels > most || columns > most || chunks > 65535)
    throw Error(ErrorCode::unsupported, "weight_gradient: " + std::to_string(pixels) + " pixels and " +
                                            std::to_string(columns) +
                                            " columns are more than this kernel takes");
  Params p;
  p.g = gradient;
  p.pixels = static_cast<int>(pixels);
  p.columns = static_cast<int>(columns);
  p.steps = (p.pixels + kDepth - 1) / kDepth;
  p.wide_source = gradient.channels % 4 == 0;
  p.wide_top = gradient.outputs % 4 == 0;
  // Parts take little memory, so that plans of close sizes take close amounts.
  const std::int64_t weights = std::max<std::int64_t>(spec.out[0].shape.elements(), 1);
  const auto splits = static_cast<int>(std::clamp<std::int64_t>(kMostPartsBytes / 4 / weights, 1, 64));
  GemmChoice choice =
      forced ? *forced
             : choose_gemm({gradient.outputs, columns, p.steps, settings.multiprocessors,
                            settings.shared_per_block, settings.shared_per_multiprocessor, splits});
  p.steps_per_split = std::max((p.steps + choice.splits - 1) / choice.splits, 1);
  choice.splits =
      std::max((p.steps + p.steps_per_split - 1) / p.steps_per_split, 1);  // no split without a step
  const Arithmetic arithmetic = arithmetic_of(settings.precision);
  const GemmTile tile = gemm_tiles[static_cast<std::size_t>(choice.tile)];
  const std::int64_t parts = choice.splits > 1 ? choice.splits * spec.out[0].shape.elements() : 0;

  Prepared prepared;
  prepared.implementation = std::string("weight_gradient:") + arithmetic.name + ":" +
                            std::to_string(tile.rows) + "x" + std::to_string(tile.columns) +
                            (choice.splits > 1 ? ":split" + std::to_string(choice.splits) : "");
  prepared.workspace_bytes = static_cast<std::size_t>(parts + chunks * gradient.outputs) * sizeof(float);
  prepared.run = [=, launcher = arithmetic.launch](const KernelArgs& args) {
    if (p.g.outputs == 0 || (p.pixels == 0 && p.g.accumulate)) return;
    auto* const workspace = static_cast<float*>(args.workspace);
    Params bound = p;
    bound.src = args.in[0].as<const float>();
    bound.d_dst = args.in[1].as<const float>();
    bound.d_weight = args.out[0].as<float>();
    bound.parts = choice.splits > 1 ? workspace : nullptr;
    if (p.columns > 0) launcher(bound, choice, static_cast<cudaStream_t>(args.stream));
    launch_bias(args, p, workspace + parts);
  };
  return prepared;
}

}  // namespace frcnn::cuda
