// RoI align backward: every sample gives its share to the four cells it was made of. A range of channels is
// one thread's, which goes through RoIs, bins and samples in order.
#include <algorithm>

#include "cpu/parallel.h"
#include "kernels.h"
#include "roi_cells.h"
#include "roi_samples.h"

namespace frcnn::cpu {

namespace {

struct Map {
  float* data;  // of one image
  int height, width;
  std::int64_t channels, begin, end;  // the thread's channels
  float* cell(int y, int x) const { return data + (static_cast<std::int64_t>(y) * width + x) * channels; }
};

void give_sample(const Map& map, const AxisSample& y, const AxisSample& x, const float* d_dst,
                 float samples) {
  float *a = map.cell(y.low, x.low), *b = map.cell(y.low, x.high), *c = map.cell(y.high, x.low),
        *d = map.cell(y.high, x.high);
  const float wa = y.weight_low * x.weight_low, wb = y.weight_low * x.weight_high;
  const float wc = y.weight_high * x.weight_low, wd = y.weight_high * x.weight_high;
  for (std::int64_t i = map.begin; i < map.end; ++i) {
    const float share = d_dst[i] / samples;
    a[i] += wa * share;
    b[i] += wb * share;
    c[i] += wc * share;
    d[i] += wd * share;
  }
}

void give_bin(const Map& map, const RoiGrid& down, const RoiGrid& across, int ph, int pw,
              const float* d_dst) {
  const auto samples = static_cast<float>(std::max<std::int64_t>(1, std::int64_t{down.grid} * across.grid));
  const SampleRange rows = samples_near_map(down, ph, map.height),
                    columns = samples_near_map(across, pw, map.width);
  for (int iy = rows.begin; iy < rows.end; ++iy) {
    const AxisSample y = axis_sample(sample_at(down, ph, iy), map.height);
    if (!y.inside) continue;
    for (int ix = columns.begin; ix < columns.end; ++ix) {
      const AxisSample x = axis_sample(sample_at(across, pw, ix), map.width);
      if (x.inside) give_sample(map, y, x, d_dst, samples);
    }
  }
}

}  // namespace

Prepared prepare(const RoiAlignBackward& op, const KernelSpec& spec, const Settings& settings) {
  const Shape features = spec.out[0].shape;
  Prepared prepared;
  prepared.implementation = "plain";
  prepared.run = [align = op.align, features, count = spec.in[1].shape[0],
                  threads = settings.threads](const KernelArgs& args) {
    const std::int64_t channels = features[3];
    const float *d_dst = args.in[0].as<const float>(), *rois = args.in[1].as<const float>();
    float* d_features = args.out[0].as<float>();
    parallel_for(channels, threads, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t cell = 0; cell < features[0] * features[1] * features[2]; ++cell)
        std::fill(d_features + cell * channels + begin, d_features + cell * channels + end, 0.0f);
      for (std::int64_t r = 0; r < count; ++r) {
        const float* roi = rois + r * 5;
        const std::int64_t image = roi_image(roi[0], features[0]);
        if (image < 0) continue;
        const Map map{d_features + image * features.row(),
                      static_cast<int>(features[1]),
                      static_cast<int>(features[2]),
                      channels,
                      begin,
                      end};
        const RoiGrid across = roi_grid(roi[1], roi[3], align.spatial_scale, align.pooled_w,
                                        align.sampling_ratio, align.aligned);
        const RoiGrid down = roi_grid(roi[2], roi[4], align.spatial_scale, align.pooled_h,
                                      align.sampling_ratio, align.aligned);
        const float* bin = d_dst + r * align.pooled_h * align.pooled_w * channels;
        for (int ph = 0; ph < align.pooled_h; ++ph)
          for (int pw = 0; pw < align.pooled_w; ++pw, bin += channels)
            give_bin(map, down, across, ph, pw, bin);
      }
    });
  };
  return prepared;
}

}  // namespace frcnn::cpu
