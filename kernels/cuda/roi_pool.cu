// RoI max pooling by Caffe's rule (kernels/roi_cells.h). One block pools one row of bins of one RoI: its
// threads take packs of channels, all bins of the row one after the other, so every load is coalesced and a
// RoI's cells stay in the cache. Bound by reading the map from L2 and writing the bins.
#include <cfloat>

#include "roi_cells.h"
#include "roi_map.h"

namespace frcnn::cuda {
namespace {

template <class T, int lanes>
__global__ void __launch_bounds__(128, 5) roi_pool_kernel(const Pack<T, lanes>* features, const float* rois,
                                                          Pack<T, lanes>* dst, RoiMap map, RoiPool op) {
  const float* const roi = rois + std::int64_t{blockIdx.x} * 5;
  const int ph = blockIdx.y;
  const std::int64_t image = roi_image(roi[0], map.batch);
  const RoiBins across = roi_bins(roi[1], roi[3], op.spatial_scale, op.pooled_w);
  const CellRange rows = roi_bin(roi_bins(roi[2], roi[4], op.spatial_scale, op.pooled_h), ph, map.height);
  const Pack<T, lanes>* const cells = features + (image < 0 ? 0 : image) * map.height * map.width * map.packs;
  for (int pw = 0; pw < op.pooled_w; ++pw) {
    const CellRange columns = roi_bin(across, pw, map.width);
    const bool empty = image < 0 || rows.begin >= rows.end || columns.begin >= columns.end;
    Pack<T, lanes>* const out =
        dst + ((std::int64_t{blockIdx.x} * op.pooled_h + ph) * op.pooled_w + pw) * map.packs;
    for (int pack = threadIdx.x; pack < map.packs; pack += blockDim.x) {
      float best[lanes];
      for (int k = 0; k < lanes; ++k) best[k] = empty ? 0.0f : -FLT_MAX;
      if (!empty) {
        for (int y = rows.begin; y < rows.end; ++y) {
          for (int x = columns.begin; x < columns.end; ++x) {
            const Pack<T, lanes> v = cells[(std::int64_t{y} * map.width + x) * map.packs + pack];
            for (int k = 0; k < lanes; ++k)
              best[k] = to_float(v.lane[k]) > best[k] ? to_float(v.lane[k]) : best[k];
          }
        }
      }
      Pack<T, lanes> v;
      for (int k = 0; k < lanes; ++k) v.lane[k] = from_float<T>(best[k]);
      out[pack] = v;
    }
  }
}

}  // namespace

Prepared prepare(const RoiPool& op, const KernelSpec& spec, const Settings&) {
  return prepare_over_rois(op, spec, "roi_pool", [](auto stored, auto lanes) {
    return roi_pool_kernel<typename decltype(stored)::type, decltype(lanes)::value>;
  });
}

}  // namespace frcnn::cuda
