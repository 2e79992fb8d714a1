// Image to network input: mean subtraction and bilinear resize, bit for bit as SPEC section 1 states it.
// Sources that are not BGR are made 8-bit BGR, pixel by pixel as they are read.
//
// Columns are interpolated first, once per source row that an output row needs; then two such rows make the
// output row. Index and weight tables are made when the kernel is prepared; each chunk of rows keeps its two
// interpolated source rows in the workspace, so that enlarging interpolates every source row once.
#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <vector>

#include "cpu/multiversion.h"
#include "cpu/parallel.h"
#include "cpu/storage.h"
#include "kernels.h"
#include "pixels.h"

namespace frcnn::cpu {

namespace {

// Where one output column or row comes from: first * (1 - weight) + second * weight.
struct Sample {
  std::int64_t first, second;
  float weight;
};

// The sampling position is rounded to float32, then its floor and its fraction are taken in float32.
Sample position(std::int64_t d, double inverse) {
  const float f = static_cast<float>((static_cast<double>(d) + 0.5) * inverse - 0.5);
  const float whole = std::floor(f);
  return {static_cast<std::int64_t>(whole), static_cast<std::int64_t>(whole) + 1, f - whole};
}

struct Plan {
  PixelFormat format;
  Frames frames;
  std::int64_t height, width;
  std::vector<Sample> columns;                  // pixels of a source row
  std::vector<Sample> rows;                     // row numbers
  std::array<std::array<float, 256>, 3> value;  // of an 8-bit level less the mean, per channel
};

std::shared_ptr<const Plan> make_plan(const Preprocess& op, const Shape& src, const Shape& dst) {
  auto plan = std::make_shared<Plan>();
  plan->format = op.format;
  plan->frames = frames_of(op, src);
  plan->height = dst[1];
  plan->width = dst[2];
  const double inverse = 1.0 / op.scale;
  for (std::int64_t x = 0; x < plan->width; ++x) {
    Sample s = position(x, inverse);
    // Beyond the first and the last column the weight falls away together with the index.
    if (s.first < 0) s = {0, 0, 0.0f};
    const std::int64_t last = plan->frames.width - 1;
    if (s.first >= last) s = {last, last, 0.0f};
    plan->columns.push_back(s);
  }
  for (std::int64_t y = 0; y < plan->height; ++y) {
    const Sample s = position(y, inverse);
    const std::int64_t last = plan->frames.height - 1;
    plan->rows.push_back(
        {std::clamp<std::int64_t>(s.first, 0, last), std::clamp<std::int64_t>(s.second, 0, last), s.weight});
  }
  for (std::size_t c = 0; c < 3; ++c) {
    for (std::size_t level = 0; level < 256; ++level) {
      plan->value[c][level] = static_cast<float>(static_cast<double>(level) - op.mean_bgr[c]);
    }
  }
  return plan;
}

template <PixelFormat format>
void interpolate_columns(const Plan& plan, const std::uint8_t* row, const std::uint8_t* chroma, float* dst) {
  for (const Sample& s : plan.columns) {
    const float rest = 1.0f - s.weight;
    const Bgr first = bgr_at<format>(row, chroma, s.first), second = bgr_at<format>(row, chroma, s.second);
    for (std::size_t c = 0; c < 3; ++c) {
      *dst++ = plan.value[c][static_cast<std::size_t>(first.level[c])] * rest +
               plan.value[c][static_cast<std::size_t>(second.level[c])] * s.weight;
    }
  }
}

// `row` counts over the whole batch.
void interpolate_columns(const Plan& plan, const std::uint8_t* images, std::int64_t row, float* dst) {
  const Frames& f = plan.frames;
  const std::uint8_t* const image = images + row / f.height * f.image_bytes;
  const std::int64_t y = row % f.height;
  const std::uint8_t* const src = image + y * f.row_bytes;
  switch (plan.format) {
    case PixelFormat::bgr:
      return interpolate_columns<PixelFormat::bgr>(plan, src, nullptr, dst);
    case PixelFormat::rgb:
      return interpolate_columns<PixelFormat::rgb>(plan, src, nullptr, dst);
    case PixelFormat::nv12:
      return interpolate_columns<PixelFormat::nv12>(plan, src, image + (f.height + y / 2) * f.row_bytes, dst);
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
  RowCache(const Plan& plan, const std::uint8_t* images, float* memory, std::int64_t row_floats)
      : plan_(plan), images_(images), memory_(memory), row_floats_(row_floats) {}

  // `keep` is the other row of the pair and must survive. Rows count over the whole batch.
  const float* get(std::int64_t row, std::int64_t keep) {
    for (std::size_t i = 0; i < 2; ++i) {
      if (held_[i] == row) return slot(i);
    }
    const std::size_t i = held_[0] == keep ? 1 : 0;
    interpolate_columns(plan_, images_, row, slot(i));
    held_[i] = row;
    return slot(i);
  }

 private:
  float* slot(std::size_t i) { return memory_ + static_cast<std::int64_t>(i) * row_floats_; }
  const Plan& plan_;
  const std::uint8_t* images_;
  float* memory_;
  std::int64_t row_floats_;
  std::array<std::int64_t, 2> held_{-1, -1};
};

}  // namespace

Prepared prepare(const Preprocess& op, const KernelSpec& spec, const Settings& settings) {
  const std::shared_ptr<const Plan> plan = make_plan(op, spec.in[0].shape, spec.out[0].shape);
  const std::int64_t rows = plan->frames.count * plan->height, row = plan->width * 3;
  const std::int64_t slice = (row + 15) / 16 * 16;  // floats: slices of two threads share no cache line
  const int threads =
      static_cast<int>(std::clamp<std::int64_t>(settings.threads, 1, std::max<std::int64_t>(rows, 1)));
  return with_storage(spec.out[0].dtype, "preprocess", [&](auto stored) {
    using T = typename decltype(stored)::type;
    Prepared prepared;
    prepared.implementation = "plain";
    prepared.workspace_bytes = static_cast<std::size_t>(2 * slice * threads) * sizeof(float);
    prepared.run = [=](const KernelArgs& args) {
      const std::uint8_t* images = args.in[0].as<const std::uint8_t>();
      T* dst = args.out[0].as<T>();
      float* workspace = static_cast<float*>(args.workspace);
      parallel_for(rows, threads, [&](std::int64_t begin, std::int64_t end, int chunk) {
        RowCache cache(*plan, images, workspace + 2 * slice * chunk, slice);
        for (std::int64_t y = begin; y < end; ++y) {
          const std::int64_t top = y / plan->height * plan->frames.height;
          const Sample& s = plan->rows[static_cast<std::size_t>(y % plan->height)];
          const float* first = cache.get(top + s.first, top + s.second);
          const float* second = cache.get(top + s.second, top + s.first);
          interpolate_rows(first, second, s.weight, dst + y * row, row);
        }
      });
    };
    return prepared;
  });
}

}  // namespace frcnn::cpu
