// RoI max pooling; RoIs go to threads.
#include <algorithm>

#include "cpu/max_of_cells.h"
#include "cpu/multiversion.h"
#include "cpu/parallel.h"
#include "cpu/save_argmax.h"
#include "cpu/storage.h"
#include "kernels.h"
#include "own_map.h"
#include "roi_cells.h"

namespace frcnn::cpu {
namespace {

template <class T>
struct Map {
  const T* data;  // of one image
  std::int64_t width, channels;
};

template <class T>
FRCNN_INLINE void pool_bin_of(const Map<T>& map, CellRange rows, CellRange columns, T* dst) {
  if (rows.begin >= rows.end || columns.begin >= columns.end) {
    std::fill_n(dst, map.channels, T{});
    return;
  }
  const T* first = map.data + (rows.begin * map.width + columns.begin) * map.channels;
  max_of_cells<T>(
      {first, rows.end - rows.begin, columns.end - columns.begin, map.width * map.channels, map.channels},
      dst);
}

FRCNN_MULTIVERSION void pool_bin(const Map<float>& map, CellRange rows, CellRange columns, float* dst) {
  pool_bin_of(map, rows, columns, dst);
}
FRCNN_MULTIVERSION void pool_bin(const Map<Bf16>& map, CellRange rows, CellRange columns, Bf16* dst) {
  pool_bin_of(map, rows, columns, dst);
}

}  // namespace

// A RoI whose image index names no image of the batch gives zeros; see roi_cells.h for malformed coordinates.
Prepared prepare(const RoiPool& op, const KernelSpec& spec, const Settings& settings) {
  if (op.save_argmax) return roi_pool_with_argmax(op, spec, settings);
  const Shape features = spec.in[0].shape;
  const std::int64_t count = spec.in[1].shape[0];
  const int threads = settings.threads;
  const DType dtype = one_storage(spec.in[0].dtype, spec.out[0].dtype, "roi_pool");
  return with_storage(dtype, "roi_pool", [&](auto stored) {
    using T = typename decltype(stored)::type;
    Prepared prepared;
    prepared.implementation = "plain";
    prepared.run = [op, features, count, threads](const KernelArgs& args) {
      const std::int64_t batch = features[0], channels = features[3];
      const int height = static_cast<int>(features[1]), width = static_cast<int>(features[2]);
      const std::int64_t out_size = op.pooled_h * op.pooled_w * channels;
      const auto* map_sizes = args.in.size() > 2 ? args.in[2].as<const std::int32_t>() : nullptr;
      parallel_for(count, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
          const float* roi = args.in[1].as<const float>() + r * 5;
          T* dst = args.out[0].as<T>() + r * out_size;
          const std::int64_t image = roi_image(roi[0], batch);
          if (image < 0) {
            std::fill_n(dst, out_size, T{});
            continue;
          }
          const Map<T> map{args.in[0].as<const T>() + image * height * width * channels, width, channels};
          const OwnMap own = own_map(feature_sizes(map_sizes, image), height, width);
          const RoiBins across = roi_bins(roi[1], roi[3], op.spatial_scale, op.pooled_w);
          const RoiBins down = roi_bins(roi[2], roi[4], op.spatial_scale, op.pooled_h);
          for (int ph = 0; ph < op.pooled_h; ++ph) {
            const CellRange rows = roi_bin(down, ph, own.rows);
            for (int pw = 0; pw < op.pooled_w; ++pw, dst += channels) {
              pool_bin(map, rows, roi_bin(across, pw, own.columns), dst);
            }
          }
        }
      });
    };
    return prepared;
  });
}

}  // namespace frcnn::cpu
