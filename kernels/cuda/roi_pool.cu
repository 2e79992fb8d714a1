// RoI max pooling by Caffe's rule (kernels/roi_cells.h). One block pools one row of bins of one RoI: its
// threads take packs of channels, all bins of the row one after the other, so every load is coalesced and a
// RoI's cells stay in the cache. Bound by reading the map from L2 and writing the bins.
//
// In training the cell of each maximum is stored beside it, and backward one block makes one cell of the map:
// it goes through RoIs and bins in order, passing over those that do not hold the cell, and its threads take
// the channels whose maximum lay there. Only cells inside the rounded RoI get a gradient (SPEC section 6).
#include <cfloat>

#include "f32_only.h"
#include "roi_cells.h"
#include "roi_map.h"

namespace frcnn::cuda {
namespace {

template <class T, int lanes>
__global__ void __launch_bounds__(128, 5)
    roi_pool_kernel(const Pack<T, lanes>* features, const float* rois, const std::int32_t* map_sizes,
                    Pack<T, lanes>* dst, RoiMap map, RoiPool op) {
  const float* const roi = rois + std::int64_t{blockIdx.x} * 5;
  const int ph = blockIdx.y;
  const std::int64_t image = roi_image(roi[0], map.batch);
  const OwnMap own = own_map(image < 0 ? nullptr : feature_sizes(map_sizes, image), map.height, map.width);
  const RoiBins across = roi_bins(roi[1], roi[3], op.spatial_scale, op.pooled_w);
  const CellRange rows = roi_bin(roi_bins(roi[2], roi[4], op.spatial_scale, op.pooled_h), ph, own.rows);
  const Pack<T, lanes>* const cells = features + (image < 0 ? 0 : image) * map.height * map.width * map.packs;
  for (int pw = 0; pw < op.pooled_w; ++pw) {
    const CellRange columns = roi_bin(across, pw, own.columns);
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

// The same for f32, with row * width + column of each maximum; -1 where there is none.
__global__ void __launch_bounds__(128, 10)
    roi_pool_argmax_kernel(const float* features, const float* rois, float* dst, int* argmax, RoiMap map,
                           RoiPool op) {
  const float* const roi = rois + std::int64_t{blockIdx.x} * 5;
  const int ph = blockIdx.y;
  const std::int64_t image = roi_image(roi[0], map.batch);
  const RoiBins across = roi_bins(roi[1], roi[3], op.spatial_scale, op.pooled_w);
  const CellRange rows = roi_bin(roi_bins(roi[2], roi[4], op.spatial_scale, op.pooled_h), ph, map.height);
  const float* const cells = features + (image < 0 ? 0 : image) * map.height * map.width * map.packs;
  for (int pw = 0; pw < op.pooled_w; ++pw) {
    const CellRange columns = roi_bin(across, pw, map.width);
    const bool empty = image < 0 || rows.begin >= rows.end || columns.begin >= columns.end;
    const std::int64_t at = ((std::int64_t{blockIdx.x} * op.pooled_h + ph) * op.pooled_w + pw) * map.packs;
    for (int c = threadIdx.x; c < map.packs; c += blockDim.x) {
      float best = empty ? 0.0f : -FLT_MAX;
      int place = -1;
      for (int y = rows.begin; !empty && y < rows.end; ++y) {
        for (int x = columns.begin; x < columns.end; ++x) {
          const float v = cells[(std::int64_t{y} * map.width + x) * map.packs + c];
          if (!(v > best)) continue;
          best = v;
          place = y * map.width + x;
        }
      }
      dst[at + c] = best;
      argmax[at + c] = place;
    }
  }
}

__device__ __forceinline__ bool holds(const CellRange& range, int cell) {
  return cell >= range.begin && cell < range.end;
}

// blockIdx.x: the cell, y: a range of channels.
__global__ void __launch_bounds__(128)
    roi_pool_backward_kernel(const float* d_dst, const int* argmax, const float* rois, float* d_features,
                             RoiMap map, RoiPool op, int count) {
  const int place = static_cast<int>(blockIdx.x % (map.height * map.width));
  const int x = place % map.width, y = place / map.width;
  const std::int64_t image = blockIdx.x / (map.height * map.width);
  const int c = blockIdx.y * blockDim.x + threadIdx.x;
  float sum = 0.0f;
  for (int r = 0; r < count; ++r) {
    const float* const roi = rois + std::int64_t{r} * 5;
    const float scale = op.spatial_scale;
    if (roi_image(roi[0], map.batch) != image || x < roi_cell(roi[1], scale) || x > roi_cell(roi[3], scale) ||
        y < roi_cell(roi[2], scale) || y > roi_cell(roi[4], scale))
      continue;
    const RoiBins across = roi_bins(roi[1], roi[3], scale, op.pooled_w);
    const RoiBins down = roi_bins(roi[2], roi[4], scale, op.pooled_h);
    for (int ph = 0; ph < op.pooled_h; ++ph) {
      if (!holds(roi_bin(down, ph, map.height), y)) continue;
      for (int pw = 0; pw < op.pooled_w; ++pw) {
        if (!holds(roi_bin(across, pw, map.width), x) || c >= map.packs) continue;
        const std::int64_t at = ((std::int64_t{r} * op.pooled_h + ph) * op.pooled_w + pw) * map.packs + c;
        if (argmax[at] == place) sum += d_dst[at];
      }
    }
  }
  if (c < map.packs) d_features[std::int64_t{blockIdx.x} * map.packs + c] = sum;
}

Prepared with_argmax(const RoiPool& op, const KernelSpec& spec) {
  require_f32(spec, "roi_pool with its maxima");
  const Shape& s = spec.in[0].shape;
  Prepared prepared;
  prepared.implementation = "roi_pool:argmax";
  prepared.run = [op,
                  map = RoiMap{s[0], static_cast<int>(s[1]), static_cast<int>(s[2]), static_cast<int>(s[3])},
                  rois = static_cast<unsigned>(spec.in[1].shape[0])](const KernelArgs& args) {
    if (rois == 0) return;
    launch(roi_pool_argmax_kernel, dim3(rois, static_cast<unsigned>(op.pooled_h)), dim3(128), 0,
           static_cast<cudaStream_t>(args.stream), args.in[0].as<const float>(), args.in[1].as<const float>(),
           args.out[0].as<float>(), args.out[1].as<int>(), map, op);
  };
  return prepared;
}

}  // namespace

Prepared prepare(const RoiPool& op, const KernelSpec& spec, const Settings&) {
  if (op.save_argmax) return with_argmax(op, spec);
  return prepare_over_rois(op, spec, "roi_pool", [](auto stored, auto lanes) {
    return roi_pool_kernel<typename decltype(stored)::type, decltype(lanes)::value>;
  });
}

Prepared prepare(const RoiPoolBackward& op, const KernelSpec& spec, const Settings&) {
  require_f32(spec, "roi_pool_backward");
  const Shape& s = spec.out[0].shape;
  const RoiMap map{s[0], static_cast<int>(s[1]), static_cast<int>(s[2]), static_cast<int>(s[3])};
  Prepared prepared;
  prepared.implementation = "roi_pool_backward";
  prepared.run = [pool = op.pool, map,
                  count = static_cast<int>(spec.in[2].shape[0])](const KernelArgs& args) {
    const std::int64_t cells = map.batch * map.height * map.width;
    if (cells * map.packs == 0) return;
    launch(roi_pool_backward_kernel,
           dim3(static_cast<unsigned>(cells), static_cast<unsigned>((map.packs + 127) / 128)), dim3(128), 0,
           static_cast<cudaStream_t>(args.stream), args.in[0].as<const float>(), args.in[1].as<const int>(),
           args.in[2].as<const float>(), args.out[0].as<float>(), map, pool, count);
  };
  return prepared;
}

}  // namespace frcnn::cuda
