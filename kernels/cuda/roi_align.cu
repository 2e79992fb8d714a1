// RoI align: the mean of bilinear samples (kernels/roi_samples.h), summed in the CPU's order. One block makes
// one row of bins of one RoI, its threads take packs of channels. Bound by reading four cells per sample from
// the cache.
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
__global__ void __launch_bounds__(128) roi_align_kernel(const Pack<T, lanes>* features, const float* rois,
                                                        Pack<T, lanes>* dst, RoiMap map, RoiAlign op) {
  const float* const roi = rois + std::int64_t{blockIdx.x} * 5;
  const int ph = blockIdx.y;
  const std::int64_t image = map.height > 0 && map.width > 0 ? roi_image(roi[0], map.batch) : -1;
  const RoiGrid across =
      roi_grid(roi[1], roi[3], op.spatial_scale, op.pooled_w, op.sampling_ratio, op.aligned);
  const RoiGrid down = roi_grid(roi[2], roi[4], op.spatial_scale, op.pooled_h, op.sampling_ratio, op.aligned);
  const Pack<T, lanes>* const cells = features + (image < 0 ? 0 : image) * map.height * map.width * map.packs;
  const SampleRange rows = samples_near_map(down, ph, map.height);
  const std::int64_t count = std::int64_t{down.grid} * across.grid;
  const float samples = static_cast<float>(count < 1 ? 1 : count);
  for (int pw = 0; pw < op.pooled_w; ++pw) {
    const SampleRange columns = samples_near_map(across, pw, map.width);
    Pack<T, lanes>* const out =
        dst + ((std::int64_t{blockIdx.x} * op.pooled_h + ph) * op.pooled_w + pw) * map.packs;
    for (int pack = threadIdx.x; pack < map.packs; pack += blockDim.x) {
      float sum[lanes] = {};
      for (int iy = rows.begin; image >= 0 && iy < rows.end; ++iy) {
        const AxisSample y = axis_sample(sample_at(down, ph, iy), map.height);
        if (!y.inside) continue;
        for (int ix = columns.begin; ix < columns.end; ++ix) {
          const AxisSample x = axis_sample(sample_at(across, pw, ix), map.width);
          if (x.inside) add_sample<T, lanes>(cells, map, y, x, pack, sum);
        }
      }
      Pack<T, lanes> v;
      for (int k = 0; k < lanes; ++k) v.lane[k] = from_float<T>(ieee::div(sum[k], samples));
      out[pack] = v;
    }
  }
}

}  // namespace

Prepared prepare(const RoiAlign& op, const KernelSpec& spec, const Settings&) {
  return prepare_over_rois(op, spec, "roi_align", [](auto stored, auto lanes) {
    return roi_align_kernel<typename decltype(stored)::type, decltype(lanes)::value>;
  });
}

}  // namespace frcnn::cuda
