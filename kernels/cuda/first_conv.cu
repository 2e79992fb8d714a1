// Convolutions of few channels: the first layer of every network.
//
// A block of 8 warps keeps the weights of its output channels in shared memory and goes from tile to tile of
// 8x16 output pixels. The rows of the source under a tile are runs of bytes, whatever the number of channels:
// cp.async copies them 16 bytes at a time into one of two patches while the other is multiplied. A row lies
// in shared memory at the same address modulo 16 as in the source, so that every copy is aligned at both
// ends; what a run's first and last 16 bytes bring along from beyond the map's borders is then set to zero by
// the thread that copied it. Lanes take their fragments of A straight from the patch, element by element
// through a table of where each k lies; the matrix of patches is never formed. A warp makes 2x8 pixels of all
// columns, in the order in which the four of a pooling window are neighbours, and writes them 32 channels at
// a time through shared memory of its own.
//
// Sums go in the order of k, as without splits in the implicit GEMM: the same bits.
//
// Shared memory: weights, two patches, 18 KB on the way out. Bound by writing the result.
#include "first_conv.h"

#include <cfloat>
#include <string>
#include <type_traits>

#include "epilogue.h"
#include "launch.h"
#include "mma.h"
#include "storage.h"

namespace frcnn::cuda {
namespace {

constexpr int kThreads = first_conv_threads, kWarps = kThreads / 32, kRows = 16;  // pixels of a warp
constexpr int kTileDown = first_conv_tile_down, kTileAcross = first_conv_tile_across;
constexpr int kGroup = 32, kGroupPitch = first_conv_out_pitch;  // columns on their way out
static_assert(kTileDown * kTileAcross == kWarps * kRows && first_conv_out_rows == kWarps * kRows);

struct Params {
  ImplicitGemm g;
  FirstConvLayout at;
  std::int64_t elements = 0;  // of the source
  int tiles_down = 0, tiles_across = 0, tiles = 0;
  int pooled_h = 0, pooled_w = 0;
  DType stored = DType::f32;  // of dst
  const void* src = nullptr;
  const void* weight = nullptr;
  const float* bias = nullptr;
  void* dst = nullptr;
};

// Where a tile lies: its first output pixel, and the source's pixel under it.
struct Tile {
  int image, out_y, out_x, y, x;
  std::int64_t first;  // element of the source at (y, x); the place may be outside of it
  int lead;            // where that is in the patch: `first` modulo 16 bytes
};

template <int each>  // elements in 16 bytes
__device__ __forceinline__ Tile tile_of(const Params& p, int number) {
  Tile t;
  const int rest = number / p.tiles_across;
  t.image = rest / p.tiles_down;
  t.out_y = rest % p.tiles_down * kTileDown;
  t.out_x = number % p.tiles_across * kTileAcross;
  t.y = t.out_y * p.g.stride - p.g.pad_h;
  t.x = t.out_x * p.g.stride - p.g.pad_w;
  t.first = ((std::int64_t{t.image} * p.g.height + t.y) * p.g.width + t.x) * p.g.channels;
  t.lead = static_cast<int>((t.first % each + each) % each);
  return t;
}

// f(row of the patch, its first element in the patch, first element of a copy): this thread's share of the
// copies of a patch, always in the same order.
template <int each, class F>
__device__ __forceinline__ void for_my_copies(const Params& p, const Tile& t, const F& f) {
  for (int i = threadIdx.x; i < p.at.patch_rows * p.at.copies; i += kThreads) {
    const int row = i / p.at.copies, begin = t.lead + row * p.at.pitch;
    const int at = begin / each * each + i % p.at.copies * each;
    if (at < begin + p.at.span) f(row, begin, at);
  }
}

template <class T>
__device__ __forceinline__ void load_patch(const Params& p, const Tile& t, T* patch) {
  constexpr int each = 16 / sizeof(T);
  for_my_copies<each>(p, t, [&](int row, int begin, int at) {
    const std::int64_t from = t.first + std::int64_t{row} * p.g.width * p.g.channels + (at - begin);
    int bytes = 0;
    if (t.y + row >= 0 && t.y + row < p.g.height && from >= 0 && from < p.elements)
      bytes =
          p.elements - from < each ? static_cast<int>(p.elements - from) * static_cast<int>(sizeof(T)) : 16;
    cp_async_zfill<16>(patch + at, static_cast<const T*>(p.src) + (bytes ? from : 0), bytes);
  });
}

// After this thread's copies have arrived: beyond the left and the right border there are zeros, and not the
// ends of other rows.
template <class T>
__device__ __forceinline__ void clear_outside(const Params& p, const Tile& t, T* patch) {
  constexpr int each = 16 / sizeof(T);
  const int left = -t.x * p.g.channels, right = (p.g.width - t.x) * p.g.channels;
  if (left <= 0 && right >= p.at.span) return;
  for_my_copies<each>(p, t, [&](int, int begin, int at) {
    for (int e = at; e < at + each; ++e)
      if (e - begin < left || e - begin >= right) patch[e] = from_float<T>(0.0f);
  });
}

template <class T, int columns>
__device__ __forceinline__ void load_weights(const Params& p, int first_column, T* weights) {
  constexpr int each = 16 / sizeof(T);
  const int copies = p.at.depth / each;
  for (int i = threadIdx.x; i < columns * copies; i += kThreads) {
    const int column = i / copies, k = i % copies * each;
    const bool inside = first_column + column < p.g.outputs;
    const T* const from = static_cast<const T*>(p.weight) +
                          (inside ? (std::int64_t{first_column} + column) * p.at.depth + k : 0);
    cp_async_zfill<16>(weights + column * p.at.weight_pitch + k, from, inside ? 16 : 0);
  }
}

// Row i of a warp's 16 is this pixel of its 2x8.
__device__ __forceinline__ int down(int row) { return row % 4 / 2; }
__device__ __forceinline__ int across(int row) { return row / 4 * 2 + row % 2; }

// Writes 32 columns of the warp's pixels; `column` is this lane's, out[row][lane] its sums.
__device__ __forceinline__ void write(const Params& p, const Tile& t, int warp_y, int warp_x,
                                      const float* out, int column) {
  if (column >= p.g.outputs) return;
  const bool pool = p.g.epilogue.max_pool_2x2;
  for (int row = 0; row < kRows; row += pool ? 4 : 1) {
    const int y = t.out_y + warp_y + down(row), x = t.out_x + warp_x + across(row);
    if (y >= p.g.out_height || x >= p.g.out_width) continue;
    float v;
    std::int64_t pixel;
    if (pool) {
      v = -FLT_MAX;
      for (int i = 0; i < 4; ++i) {
        if (y + down(i) >= p.g.out_height || x + across(i) >= p.g.out_width) continue;
        const float one = finish(p.g.epilogue, p.bias, column, out[(row + i) * kGroupPitch]);
        v = one > v ? one : v;
      }
      pixel = (std::int64_t{t.image} * p.pooled_h + y / 2) * p.pooled_w + x / 2;
    } else {
      v = finish(p.g.epilogue, p.bias, column, out[row * kGroupPitch]);
      pixel = (std::int64_t{t.image} * p.g.out_height + y) * p.g.out_width + x;
    }
    store_as(p.stored, p.dst, pixel * p.g.outputs + column, v);
  }
}

template <class Math, int columns>
__global__ void __launch_bounds__(kThreads, 2) first_conv_kernel(__grid_constant__ const Params p) {
  using T = typename Math::Stored;
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint16_t>;
  constexpr int each = 16 / sizeof(T);
  SharedCarver carver;
  T* const weights = carver.take<T>(columns * p.at.weight_pitch);
  T* const patches = carver.take<T>(2 * p.at.patch);
  float* const staging = carver.take<float>(first_conv_out_rows * kGroupPitch);
  int* const places = carver.take<int>(p.at.depth);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int first_column = blockIdx.y * columns;

  for (int k = threadIdx.x; k < p.at.depth; k += kThreads) {
    const int tap = k / p.g.channels;
    places[k] = tap >= p.g.kernel_h * p.g.kernel_w
                    ? -1  // k is filled up to whole steps
                    : tap / p.g.kernel_w * p.at.pitch + tap % p.g.kernel_w * p.g.channels + k % p.g.channels;
  }
  load_weights<T, columns>(p, first_column, weights);
  if (static_cast<int>(blockIdx.x) < p.tiles) load_patch(p, tile_of<each>(p, blockIdx.x), patches);
  cp_async_commit_group();

  const int warp_y = warp / 2 * 2, warp_x = warp % 2 * 8;
  float* const out = staging + warp * kRows * kGroupPitch;
  int turn = 0;
  for (int number = blockIdx.x; number < p.tiles; number += gridDim.x, turn ^= 1) {
    const Tile t = tile_of<each>(p, number);
    T* const patch = patches + turn * p.at.patch;
    cp_async_wait_all();
    clear_outside(p, t, patch);
    __syncthreads();  // the patch is there for everybody, and nobody reads the other one
    if (number + static_cast<int>(gridDim.x) < p.tiles)
      load_patch(p, tile_of<each>(p, number + gridDim.x), patches + (turn ^ 1) * p.at.patch);
    cp_async_commit_group();

    // A lane's rows are lane / 4 and eight behind it, which is four pixels to the right.
    const int row = lane / 4, step = p.g.stride * p.g.channels;
    const T* const mine =
        patch + t.lead + (warp_y + down(row)) * p.g.stride * p.at.pitch + (warp_x + across(row)) * step;
    WarpTile<Math, kRows, columns> sums;
    for (int k = 0; k < p.at.depth; k += sums.step) {
      sums.multiply_gathered(
          [&](int lower, int at) {
            const int place = places[k + at];
            return place < 0 ? Bits{0} : reinterpret_cast<const Bits*>(mine)[place + lower * 4 * step];
          },
          weights + k, p.at.weight_pitch);
    }
#pragma unroll
    for (int group = 0; group < columns / kGroup; ++group) {
      sums.for_each([&](int r, int column, float v) {
        if (column / kGroup == group) out[r * kGroupPitch + column % kGroup] = v;
      });
      __syncwarp();
      write(p, t, warp_y, warp_x, out + lane, first_column + group * kGroup + lane);
      __syncwarp();
    }
  }
}

template <class Math, int columns>
void launch_columns(const Params& p, const FirstConvChoice& choice, std::size_t shared_bytes,
                    cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(choice.blocks),
                  static_cast<unsigned>((p.g.outputs + columns - 1) / columns));
  launch(first_conv_kernel<Math, columns>, grid, dim3(kThreads), shared_bytes, stream, p);
}

template <class Math>
void launch_first_conv(const Params& p, const FirstConvChoice& choice, std::size_t shared_bytes,
                       cudaStream_t stream) {
  static_assert(first_conv_columns.size() == 3, "every width of the table is instantiated here");
  constexpr auto c = first_conv_columns;
  switch (choice.columns) {
    case 0:
      return launch_columns<Math, c[0]>(p, choice, shared_bytes, stream);
    case 1:
      return launch_columns<Math, c[1]>(p, choice, shared_bytes, stream);
    default:
      return launch_columns<Math, c[2]>(p, choice, shared_bytes, stream);
  }
}

using Launcher = void (*)(const Params&, const FirstConvChoice&, std::size_t, cudaStream_t);

struct Arithmetic {
  Launcher launch;
  const char* name;
};

Arithmetic arithmetic_of(DType stored, Precision precision) {
  if (stored == DType::f16) return {launch_first_conv<Fp16>, Fp16::name};
  if (stored == DType::bf16) return {launch_first_conv<Bf16>, Bf16::name};
  if (precision == Precision::tf32x3) return {launch_first_conv<Tf32x3>, Tf32x3::name};
  return precision == Precision::tf32 ? Arithmetic{launch_first_conv<Tf32>, Tf32::name}
                                      : Arithmetic{launch_first_conv<Fp32>, Fp32::name};
}

FirstConvProblem problem_of(const ImplicitGemm& conv, DType stored, const Settings& settings) {
  FirstConvProblem problem;
  problem.batch = conv.batch;
  problem.width = conv.width;
  problem.channels = conv.channels;
  problem.kernel_h = conv.kernel_h;
  problem.kernel_w = conv.kernel_w;
  problem.stride = conv.stride;
  problem.out_height = conv.out_height;
  problem.out_width = conv.out_width;
  problem.outputs = conv.outputs;
  problem.element = static_cast<int>(size_of(stored));
  problem.multiprocessors = settings.multiprocessors;
  problem.shared_per_block = settings.shared_per_block;
  problem.shared_per_multiprocessor = settings.shared_per_multiprocessor;
  return problem;
}

}  // namespace

std::optional<FirstConvChoice> choose_first_conv(const ImplicitGemm& conv, DType stored,
                                                 const Settings& settings) {
  return choose_first_conv(problem_of(conv, stored, settings));
}

void use_first_conv(const ImplicitGemm& conv, const KernelSpec& spec, const Settings& settings,
                    const FirstConvChoice& choice, Prepared& prepared) {
  const DType stored = spec.in[0].dtype;
  const FirstConvProblem problem = problem_of(conv, stored, settings);
  Params p;
  p.g = conv;
  p.at = first_conv_layout(problem);
  p.elements = spec.in[0].shape.elements();
  p.tiles_down = (conv.out_height + kTileDown - 1) / kTileDown;
  p.tiles_across = (conv.out_width + kTileAcross - 1) / kTileAcross;
  p.tiles = conv.batch * p.tiles_down * p.tiles_across;
  p.pooled_h = (conv.out_height + 1) / 2;
  p.pooled_w = (conv.out_width + 1) / 2;
  p.stored = spec.out[0].dtype;
  const Arithmetic arithmetic = arithmetic_of(stored, settings.precision);
  const int columns = first_conv_columns.at(static_cast<std::size_t>(choice.columns));
  const std::size_t shared_bytes = first_conv_shared_bytes(problem, columns);
  prepared.implementation = std::string("first_conv:") + arithmetic.name + ":" + std::to_string(columns);
  prepared.workspace_bytes = 0;
  prepared.run = [p, choice, shared_bytes, launcher = arithmetic.launch](const KernelArgs& args) {
    if (p.tiles == 0 || p.g.outputs == 0) return;
    Params bound = p;
    bound.src = args.in[0].data;
    bound.weight = args.in[1].data;
    bound.bias = args.in.size() > 2 ? args.in[2].as<const float>() : nullptr;
    bound.dst = args.out[0].data;
    launcher(bound, choice, shared_bytes, static_cast<cudaStream_t>(args.stream));
  };
}

}  // namespace frcnn::cuda
