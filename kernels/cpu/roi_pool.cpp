// RoI max pooling. A cell's channels lie together, so the maximum runs over vectors of channels; RoIs go to
// threads.
#include <algorithm>
#include <limits>

#include "kernels.h"
#include "parallel.h"
#include "roi_cells.h"

namespace frcnn::cpu {
namespace {

struct Map {
  const float* data;  // of one image
  std::int64_t width, channels;
};

// Enough accumulators to fill the vector registers, few enough to stay in them.
constexpr std::int64_t lanes = 32;

// dst[0..n) = the largest of the cells' channels from `first` on. Strictly larger wins, so a NaN never does.
template <bool whole>
void max_block(const Map& map, CellRange rows, CellRange columns, std::int64_t first, std::int64_t n,
               float* dst) {
  float best[lanes];
  for (float& b : best) b = -std::numeric_limits<float>::max();
  if constexpr (whole) n = lanes;
  for (int y = rows.begin; y < rows.end; ++y) {
    const float* cell = map.data + (y * map.width + columns.begin) * map.channels + first;
    for (int x = columns.begin; x < columns.end; ++x, cell += map.channels) {
      for (std::int64_t c = 0; c < n; ++c) best[c] = cell[c] > best[c] ? cell[c] : best[c];
    }
  }
  std::copy_n(best, n, dst);
}

void pool_bin(const Map& map, CellRange rows, CellRange columns, float* dst) {
  if (rows.begin >= rows.end || columns.begin >= columns.end) {
    std::fill_n(dst, map.channels, 0.0f);
    return;
  }
  std::int64_t c = 0;
  for (; c + lanes <= map.channels; c += lanes) max_block<true>(map, rows, columns, c, lanes, dst + c);
  if (c < map.channels) max_block<false>(map, rows, columns, c, map.channels - c, dst + c);
}

}  // namespace

// A RoI whose image index names no image of the batch gives zeros; see roi_cells.h for malformed coordinates.
Prepared prepare(const RoiPool& op, const KernelSpec& spec, const Settings& settings) {
  const Shape features = spec.in[0].shape;
  const std::int64_t count = spec.in[1].shape[0];
  const int threads = settings.threads;
  Prepared prepared;
  prepared.implementation = "plain";
  prepared.run = [op, features, count, threads](const KernelArgs& args) {
    const std::int64_t batch = features[0], channels = features[3];
    const int height = static_cast<int>(features[1]), width = static_cast<int>(features[2]);
    const std::int64_t out_size = op.pooled_h * op.pooled_w * channels;
    parallel_for(count, threads, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const float* roi = args.in[1].as<const float>() + r * 5;
        float* dst = args.out[0].as<float>() + r * out_size;
        const std::int64_t image = roi_image(roi[0], batch);
        if (image < 0) {
          std::fill_n(dst, out_size, 0.0f);
          continue;
        }
        const Map map{args.in[0].as<const float>() + image * height * width * channels, width, channels};
        const RoiBins across = roi_bins(roi[1], roi[3], op.spatial_scale, op.pooled_w);
        const RoiBins down = roi_bins(roi[2], roi[4], op.spatial_scale, op.pooled_h);
        for (int ph = 0; ph < op.pooled_h; ++ph) {
          const CellRange rows = roi_bin(down, ph, height);
          for (int pw = 0; pw < op.pooled_w; ++pw, dst += channels) {
            pool_bin(map, rows, roi_bin(across, pw, width), dst);
          }
        }
      }
    });
  };
  return prepared;
}

}  // namespace frcnn::cpu
