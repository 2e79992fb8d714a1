// RoI max pooling that saves where its maxima were, and its backward. There a range of channels is one
// thread's, which adds up RoI after RoI and bin after bin: the order of a gather, whatever the number of
// threads.
#include <algorithm>
#include <limits>

#include "cpu/parallel.h"
#include "cpu/save_argmax.h"
#include "kernels.h"
#include "roi_cells.h"

namespace frcnn::cpu {

namespace {

struct Map {
  const float* data;  // of one image
  std::int64_t width, channels;
};

void pool_bin(const Map& map, CellRange rows, CellRange columns, float* dst, std::int32_t* argmax) {
  if (rows.begin >= rows.end || columns.begin >= columns.end) {
    std::fill_n(dst, map.channels, 0.0f);
    std::fill_n(argmax, map.channels, -1);
    return;
  }
  std::fill_n(dst, map.channels, -std::numeric_limits<float>::max());
  std::fill_n(argmax, map.channels, -1);
  for (int y = rows.begin; y < rows.end; ++y) {
    for (int x = columns.begin; x < columns.end; ++x) {
      const auto place = static_cast<std::int32_t>(y * map.width + x);
      const float* cell = map.data + place * map.channels;
      for (std::int64_t c = 0; c < map.channels; ++c) {
        argmax[c] = cell[c] > dst[c] ? place : argmax[c];
        dst[c] = cell[c] > dst[c] ? cell[c] : dst[c];
      }
    }
  }
}

}  // namespace

Prepared roi_pool_with_argmax(const RoiPool& op, const KernelSpec& spec, const Settings& settings) {
  const Shape features = spec.in[0].shape;
  Prepared prepared;
  prepared.implementation = "plain";
  prepared.run = [op, features, count = spec.in[1].shape[0],
                  threads = settings.threads](const KernelArgs& args) {
    const std::int64_t channels = features[3];
    const int height = static_cast<int>(features[1]), width = static_cast<int>(features[2]);
    const std::int64_t out_size = op.pooled_h * op.pooled_w * channels;
    parallel_for(count, threads, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const float* roi = args.in[1].as<const float>() + r * 5;
        float* dst = args.out[0].as<float>() + r * out_size;
        auto* argmax = args.out[1].as<std::int32_t>() + r * out_size;
        const std::int64_t image = roi_image(roi[0], features[0]);
        if (image < 0) {
          std::fill_n(dst, out_size, 0.0f);
          std::fill_n(argmax, out_size, -1);
          continue;
        }
        const Map map{args.in[0].as<const float>() + image * features.row(), width, channels};
        const RoiBins across = roi_bins(roi[1], roi[3], op.spatial_scale, op.pooled_w);
        const RoiBins down = roi_bins(roi[2], roi[4], op.spatial_scale, op.pooled_h);
        for (int ph = 0; ph < op.pooled_h; ++ph) {
          const CellRange rows = roi_bin(down, ph, height);
          for (int pw = 0; pw < op.pooled_w; ++pw, dst += channels, argmax += channels)
            pool_bin(map, rows, roi_bin(across, pw, width), dst, argmax);
        }
      }
    });
  };
  return prepared;
}

Prepared prepare(const RoiPoolBackward& op, const KernelSpec& spec, const Settings& settings) {
  const Shape features = spec.out[0].shape;
  Prepared prepared;
  prepared.implementation = "plain";
  prepared.run = [op, features, count = spec.in[2].shape[0],
                  threads = settings.threads](const KernelArgs& args) {
    const std::int64_t channels = features[3], width = features[2];
    const std::int64_t bins = op.pool.pooled_h * op.pool.pooled_w;
    const float *d_dst = args.in[0].as<const float>(), *rois = args.in[2].as<const float>();
    const auto* argmax = args.in[1].as<const std::int32_t>();
    float* d_features = args.out[0].as<float>();
    parallel_for(channels, threads, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t cell = 0; cell < features[0] * features[1] * features[2]; ++cell)
        std::fill(d_features + cell * channels + begin, d_features + cell * channels + end, 0.0f);
      for (std::int64_t r = 0; r < count; ++r) {
        const float* roi = rois + r * 5;
        const std::int64_t image = roi_image(roi[0], features[0]);
        if (image < 0) continue;
        // Bins may reach a cell beyond the rounded RoI; the release gives those cells nothing (SPEC section
        // 6).
        const float scale = op.pool.spatial_scale;
        const int x0 = roi_cell(roi[1], scale), x1 = roi_cell(roi[3], scale), y0 = roi_cell(roi[2], scale),
                  y1 = roi_cell(roi[4], scale);
        float* map = d_features + image * features.row();
        for (std::int64_t at = r * bins * channels; at < (r + 1) * bins * channels; at += channels) {
          for (std::int64_t c = begin; c < end; ++c) {
            const std::int32_t place = argmax[at + c];
            if (place < 0) continue;
            const std::int64_t y = place / width, x = place % width;
            if (y >= y0 && y <= y1 && x >= x0 && x <= x1) map[place * channels + c] += d_dst[at + c];
          }
        }
      }
    });
  };
  return prepared;
}

}  // namespace frcnn::cpu
