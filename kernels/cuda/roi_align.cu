// RoI align: the mean of bilinear samples (kernels/roi_samples.h), summed in the CPU's order. One block makes
// one row of bins of one RoI, its threads take packs of channels. Bound by reading four cells per sample from
// the cache.
//
// Backward one block makes one cell of the map: it goes through RoIs, bins and samples in the CPU's order,
// passing over what does not touch the cell, and its threads take channels. Bound by finding the samples.
#include "f32_only.h"
#include "roi_cells.h"
#include "roi_map.h"
#include "roi_samples.h"

namespace frcnn::cuda {
namespace {

template <class T, int lanes>
__device__ void add_sample(const Pack<T, lanes>* cells, const RoiMap& map, const AxisSample& y,
                           const AxisSample& x, int pack, float* sum) {
  const auto cell = [&](int row, int column) {
    return cells[(std::int64_t{row} * map.width + column) * map.packs + pack];
  };
  const Pack<T, lanes> a = cell(y.low, x.low), b = cell(y.low, x.high), c = cell(y.high, x.low),
                       d = cell(y.high, x.high);
  using namespace ieee;
  const float wa = mul(y.weight_low, x.weight_low), wb = mul(y.weight_low, x.weight_high);
  const float wc = mul(y.weight_high, x.weight_low), wd = mul(y.weight_high, x.weight_high);
  for (int k = 0; k < lanes; ++k)
    sum[k] = add(sum[k], add(add(add(mul(wa, to_float(a.lane[k])), mul(wb, to_float(b.lane[k]))),
                                 mul(wc, to_float(c.lane[k]))),
                             mul(wd, to_float(d.lane[k]))));
}

template <class T, int lanes>
__global__ void __launch_bounds__(128, 7)
    roi_align_kernel(const Pack<T, lanes>* features, const float* rois, const std::int32_t* map_sizes,
                     Pack<T, lanes>* dst, RoiMap map, RoiAlign op) {
  const float* const roi = rois + std::int64_t{blockIdx.x} * 5;
  const int ph = blockIdx.y;
  const std::int64_t named = roi_image(roi[0], map.batch);
  const OwnMap own = own_map(named < 0 ? nullptr : feature_sizes(map_sizes, named), map.height, map.width);
  const std::int64_t image = own.rows > 0 && own.columns > 0 ? named : -1;
  const RoiGrid across =
      roi_grid(roi[1], roi[3], op.spatial_scale, op.pooled_w, op.sampling_ratio, op.aligned);
  const RoiGrid down = roi_grid(roi[2], roi[4], op.spatial_scale, op.pooled_h, op.sampling_ratio, op.aligned);
  const Pack<T, lanes>* const cells = features + (image < 0 ? 0 : image) * map.height * map.width * map.packs;
  const SampleRange rows = samples_near_map(down, ph, own.rows);
  const std::int64_t count = std::int64_t{down.grid} * across.grid;
  const float samples = static_cast<float>(count < 1 ? 1 : count);
  for (int pw = 0; pw < op.pooled_w; ++pw) {
    const SampleRange columns = samples_near_map(across, pw, own.columns);
    Pack<T, lanes>* const out =
        dst + ((std::int64_t{blockIdx.x} * op.pooled_h + ph) * op.pooled_w + pw) * map.packs;
    for (int pack = threadIdx.x; pack < map.packs; pack += blockDim.x) {
      float sum[lanes] = {};
      for (int iy = rows.begin; image >= 0 && iy < rows.end; ++iy) {
        const AxisSample y = axis_sample(sample_at(down, ph, iy), own.rows);
        if (!y.inside) continue;
        for (int ix = columns.begin; ix < columns.end; ++ix) {
          const AxisSample x = axis_sample(sample_at(across, pw, ix), own.columns);
          if (x.inside) add_sample<T, lanes>(cells, map, y, x, pack, sum);
        }
      }
      Pack<T, lanes> v;
      for (int k = 0; k < lanes; ++k) v.lane[k] = from_float<T>(ieee::div(sum[k], samples));
      out[pack] = v;
    }
  }
}

// Whether samples of one direction can reach the cell at all: their points lie between the RoI's ends, and a
// point belongs to the cells beside it (the border's cells to all points up to one cell outside). Half a cell
// to spare against rounding.
__device__ __forceinline__ bool may_reach(const RoiGrid& roi, int pooled, int cell, int cells) {
  const float end = ieee::add(roi.start, ieee::mul(static_cast<float>(pooled), roi.bin));
  const float low = roi.start < end ? roi.start : end, high = roi.start < end ? end : roi.start;
  if (cell > 0 && cell < cells - 1)
    return low <= static_cast<float>(cell) + 1.5f && high >= static_cast<float>(cell) - 1.5f;
  return true;
}

// Adds what one sample gives to cell (y, x): a share for each of the four corners that is this cell.
__device__ __forceinline__ float with_shares(float sum, const AxisSample& v, const AxisSample& u, int y,
                                             int x, float share) {
  using namespace ieee;
  if (v.low == y && u.low == x) sum = add(sum, mul(mul(v.weight_low, u.weight_low), share));
  if (v.low == y && u.high == x) sum = add(sum, mul(mul(v.weight_low, u.weight_high), share));
  if (v.high == y && u.low == x) sum = add(sum, mul(mul(v.weight_high, u.weight_low), share));
  if (v.high == y && u.high == x) sum = add(sum, mul(mul(v.weight_high, u.weight_high), share));
  return sum;
}

__device__ __forceinline__ bool touches(const AxisSample& sample, int cell) {
  return sample.inside && (sample.low == cell || sample.high == cell);
}

// Whether any of a bin's samples does.
__device__ __forceinline__ bool touches(const RoiGrid& roi, int bin, const SampleRange& samples, int cell,
                                        int cells) {
  bool any = false;
  for (int i = samples.begin; !any && i < samples.end; ++i)
    any = touches(axis_sample(sample_at(roi, bin, i), cells), cell);
  return any;
}

// blockIdx.x: the cell, y: a range of channels. NaN coordinates make no sample that is inside.
__global__ void __launch_bounds__(128, 8)
    roi_align_backward_kernel(const float* d_dst, const float* rois, float* d_features, RoiMap map,
                              RoiAlign op, int count) {
  const int place = static_cast<int>(blockIdx.x % (map.height * map.width));
  const int cx = place % map.width, cy = place / map.width;
  const std::int64_t image = blockIdx.x / (map.height * map.width);
  const int c = blockIdx.y * blockDim.x + threadIdx.x;
  float sum = 0.0f;
  for (int r = 0; r < count; ++r) {
    const float* const roi = rois + std::int64_t{r} * 5;
    if (roi_image(roi[0], map.batch) != image) continue;
    const RoiGrid across =
        roi_grid(roi[1], roi[3], op.spatial_scale, op.pooled_w, op.sampling_ratio, op.aligned);
    const RoiGrid down =
        roi_grid(roi[2], roi[4], op.spatial_scale, op.pooled_h, op.sampling_ratio, op.aligned);
    if (!may_reach(across, op.pooled_w, cx, map.width) || !may_reach(down, op.pooled_h, cy, map.height))
      continue;
    const std::int64_t points = std::int64_t{down.grid} * across.grid;
    const float samples = static_cast<float>(points < 1 ? 1 : points);
    for (int ph = 0; ph < op.pooled_h; ++ph) {
      const SampleRange rows = samples_near_map(down, ph, map.height);
      if (!touches(down, ph, rows, cy, map.height)) continue;
      for (int pw = 0; pw < op.pooled_w; ++pw) {
        const SampleRange columns = samples_near_map(across, pw, map.width);
        if (!touches(across, pw, columns, cx, map.width)) continue;
        const std::int64_t at = ((std::int64_t{r} * op.pooled_h + ph) * op.pooled_w + pw) * map.packs + c;
        const float share = c < map.packs ? ieee::div(d_dst[at], samples) : 0.0f;
        for (int iy = rows.begin; iy < rows.end; ++iy) {
          const AxisSample v = axis_sample(sample_at(down, ph, iy), map.height);
          if (!touches(v, cy)) continue;
          for (int ix = columns.begin; ix < columns.end; ++ix) {
            const AxisSample u = axis_sample(sample_at(across, pw, ix), map.width);
            if (touches(u, cx)) sum = with_shares(sum, v, u, cy, cx, share);
          }
        }
      }
    }
  }
  if (c < map.packs) d_features[std::int64_t{blockIdx.x} * map.packs + c] = sum;
}

}  // namespace

Prepared prepare(const RoiAlign& op, const KernelSpec& spec, const Settings&) {
  return prepare_over_rois(op, spec, "roi_align", [](auto stored, auto lanes) {
    return roi_align_kernel<typename decltype(stored)::type, decltype(lanes)::value>;
  });
}

Prepared prepare(const RoiAlignBackward& op, const KernelSpec& spec, const Settings&) {
  require_f32(spec, "roi_align_backward");
  const Shape& s = spec.out[0].shape;
  const RoiMap map{s[0], static_cast<int>(s[1]), static_cast<int>(s[2]), static_cast<int>(s[3])};
  Prepared prepared;
  prepared.implementation = "roi_align_backward";
  prepared.run = [align = op.align, map,
                  count = static_cast<int>(spec.in[1].shape[0])](const KernelArgs& args) {
    const std::int64_t cells = map.batch * map.height * map.width;
    if (cells * map.packs == 0) return;
    launch(roi_align_backward_kernel,
           dim3(static_cast<unsigned>(cells), static_cast<unsigned>((map.packs + 127) / 128)), dim3(128), 0,
           static_cast<cudaStream_t>(args.stream), args.in[0].as<const float>(), args.in[1].as<const float>(),
           args.out[0].as<float>(), map, align, count);
  };
  return prepared;
}

}  // namespace frcnn::cuda
