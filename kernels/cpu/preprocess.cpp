// Images to network input: mean subtraction and bilinear resize, bit for bit as SPEC section 1 states it.
// Sources that are not BGR are made 8-bit BGR, pixel by pixel as they are read.
//
// Columns are interpolated first, once per source row that an output row needs; then two such rows make the
// output row. What a run is given says where the columns of each image come from, so their table is made
// anew in each run; each chunk of rows keeps its two interpolated source rows in the workspace, so that
// enlarging interpolates every source row once.
#include <algorithm>
#include <array>
#include <cmath>
#include <memory>

#include "cpu/carve.h"
#include "cpu/multiversion.h"
#include "cpu/parallel.h"
#include "cpu/storage.h"
#include "kernels.h"
#include "pixels.h"

namespace frcnn::cpu {

namespace {

// Where one output column or row comes from: first * (1 - weight) + second * weight.
struct Sample {
  std::int32_t first, second;
  float weight;
};

// The sampling position is rounded to float32, then its floor and its fraction are taken in float32.
Sample position(std::int64_t d, double inverse) {
  const float f = static_cast<float>((static_cast<double>(d) + 0.5) * inverse - 0.5);
  const float whole = std::floor(f);
  return {static_cast<std::int32_t>(whole), static_cast<std::int32_t>(whole) + 1, f - whole};
}

Sample column_of(const SourceImage& image, std::int64_t x) {
  const Sample s = position(x, image.inverse_scale);
  // Beyond the first and the last column the weight falls away together with the index.
  if (s.first < 0) return {0, 0, 0.0f};
  const std::int32_t last = image.width - 1;
  return s.first >= last ? Sample{last, last, 0.0f} : s;
}

Sample row_of(const SourceImage& image, std::int64_t y) {
  const Sample s = position(y, image.inverse_scale);
  return {std::clamp(s.first, 0, image.height - 1), std::clamp(s.second, 0, image.height - 1), s.weight};
}

using Levels = std::array<std::array<float, 256>, 3>;  // of an 8-bit level less the mean, per channel

// A run's images, and where their columns come from: `width` entries for each.
struct Sources {
  const SourceImage* images;
  std::uint64_t base;
  const Sample* columns;
  std::int64_t width;
  const Levels& levels;
};

template <PixelFormat format>
void interpolate_columns(const Sources& sources, std::int64_t n, std::int64_t row, float* dst) {
  const SourceImage& image = sources.images[n];
  const Sample* const columns = sources.columns + n * sources.width;
  for (std::int64_t x = 0; x < image.out_width; ++x) {
    const Sample& s = columns[x];
    const float rest = 1.0f - s.weight;
    const Bgr first = bgr_of<format>(image, sources.base, row, s.first),
              second = bgr_of<format>(image, sources.base, row, s.second);
    for (std::size_t c = 0; c < 3; ++c) {
      *dst++ = sources.levels[c][static_cast<std::size_t>(first.level[c])] * rest +
               sources.levels[c][static_cast<std::size_t>(second.level[c])] * s.weight;
    }
  }
}

void interpolate_columns(const Sources& sources, std::int64_t n, std::int64_t row, float* dst) {
  switch (sources.images[n].format) {
    case PixelFormat::bgr:
      return interpolate_columns<PixelFormat::bgr>(sources, n, row, dst);
    case PixelFormat::rgb:
      return interpolate_columns<PixelFormat::rgb>(sources, n, row, dst);
    case PixelFormat::nv12:
      return interpolate_columns<PixelFormat::nv12>(sources, n, row, dst);
  }
}

template <class T>
FRCNN_INLINE void interpolate_rows_of(const float* first, const float* second, float weight, T* dst,
                                      std::int64_t n) {
  const float rest = 1.0f - weight;
  for (std::int64_t i = 0; i < n; ++i) dst[i] = from_float<T>(first[i] * rest + second[i] * weight);
}

FRCNN_MULTIVERSION void interpolate_rows(const float* first, const float* second, float weight, float* dst,
                                         std::int64_t n) {
  interpolate_rows_of(first, second, weight, dst, n);
}
FRCNN_MULTIVERSION void interpolate_rows(const float* first, const float* second, float weight, Bf16* dst,
                                         std::int64_t n) {
  interpolate_rows_of(first, second, weight, dst, n);
}

// The two source rows, interpolated, that a chunk has at hand.
class RowCache {
 public:
  RowCache(const Sources& sources, float* memory, std::int64_t row_floats)
      : sources_(sources), memory_(memory), row_floats_(row_floats) {}

  // `keep` is the other row of the pair, of the same image, and must survive.
  const float* get(std::int64_t image, std::int64_t row, std::int64_t keep) {
    if (image != image_) held_ = {-1, -1};
    image_ = image;
    for (std::size_t i = 0; i < 2; ++i) {
      if (held_[i] == row) return slot(i);
    }
    const std::size_t i = held_[0] == keep ? 1 : 0;
    interpolate_columns(sources_, image, row, slot(i));
    held_[i] = row;
    return slot(i);
  }

 private:
  float* slot(std::size_t i) { return memory_ + static_cast<std::int64_t>(i) * row_floats_; }
  const Sources& sources_;
  float* memory_;
  std::int64_t row_floats_, image_ = -1;
  std::array<std::int64_t, 2> held_{-1, -1};
};

}  // namespace

Prepared prepare(const Preprocess& op, const KernelSpec& spec, const Settings& settings) {
  const std::int64_t count = spec.out[0].shape[0], height = op.height, width = op.width;
  const std::int64_t slice = (width * 3 + 15) / 16 * 16;  // floats: slices of two threads share no cache line
  const int threads = static_cast<int>(
      std::clamp<std::int64_t>(settings.threads, 1, std::max<std::int64_t>(count * height, 1)));
  const auto levels = std::make_shared<Levels>();
  for (std::size_t c = 0; c < 3; ++c) {
    for (std::size_t level = 0; level < 256; ++level) {
      (*levels)[c][level] = static_cast<float>(static_cast<double>(level) - op.mean_bgr[c]);
    }
  }
  return with_storage(spec.out[0].dtype, "preprocess", [&](auto stored) {
    using T = typename decltype(stored)::type;
    Carver sizes;
    sizes.take<Sample>(count * width);
    sizes.take<float>(2 * slice * threads);
    Prepared prepared;
    prepared.implementation = "plain";
    prepared.workspace_bytes = sizes.used();
    prepared.run = [=](const KernelArgs& args) {
      Carver workspace(args.workspace);
      auto* const columns = workspace.take<Sample>(count * width);
      auto* const rows = workspace.take<float>(2 * slice * threads);
      const auto* const images = args.in[0].as<const SourceImage>();
      for (std::int64_t n = 0; n < count; ++n)
        for (std::int64_t x = 0; x < images[n].out_width; ++x)
          columns[n * width + x] = column_of(images[n], x);
      const auto base = args.in.size() > 1 ? reinterpret_cast<std::uintptr_t>(args.in[1].data) : 0;
      const Sources sources{images, base, columns, width, *levels};
      T* const dst = args.out[0].as<T>();
      parallel_for(count * height, threads, [&](std::int64_t begin, std::int64_t end, int chunk) {
        RowCache cache(sources, rows + 2 * slice * chunk, slice);
        for (std::int64_t i = begin; i < end; ++i) {
          const std::int64_t n = i / height, y = i % height;
          T* const row = dst + i * width * 3;
          std::int64_t filled = 0;  // the rest is padding
          if (y < images[n].out_height) {
            const Sample s = row_of(images[n], y);
            const float* first = cache.get(n, s.first, s.second);
            const float* second = cache.get(n, s.second, s.first);
            filled = std::int64_t{images[n].out_width} * 3;
            interpolate_rows(first, second, s.weight, row, filled);
          }
          std::fill(row + filled, row + width * 3, T{});
        }
      });
    };
    return prepared;
  });
}

}  // namespace frcnn::cpu
