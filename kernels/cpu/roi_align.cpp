// RoI align: the mean of bilinear samples, summed in torchvision's order. Vectorised over channels; RoIs go
// to threads.
#include <algorithm>

#include "cpu/carve.h"
#include "cpu/multiversion.h"
#include "cpu/parallel.h"
#include "cpu/storage.h"
#include "kernels.h"
#include "own_map.h"
#include "roi_cells.h"
#include "roi_samples.h"

namespace frcnn::cpu {
namespace {

template <class T>
struct Map {
  const T* data;  // of one image
  int width;
  std::int64_t channels;
  FRCNN_INLINE const T* cell(int y, int x) const {
    return data + (static_cast<std::int64_t>(y) * width + x) * channels;
  }
};

// sum[0..channels) += the map at one point.
template <class T>
FRCNN_INLINE void add_sample_of(const Map<T>& map, const AxisSample& y, const AxisSample& x, float* sum) {
  const T *a = map.cell(y.low, x.low), *b = map.cell(y.low, x.high);
  const T *c = map.cell(y.high, x.low), *d = map.cell(y.high, x.high);
  const float wa = y.weight_low * x.weight_low, wb = y.weight_low * x.weight_high;
  const float wc = y.weight_high * x.weight_low, wd = y.weight_high * x.weight_high;
  for (std::int64_t i = 0; i < map.channels; ++i)
    sum[i] += wa * to_float(a[i]) + wb * to_float(b[i]) + wc * to_float(c[i]) + wd * to_float(d[i]);
}

FRCNN_MULTIVERSION void add_sample(const Map<float>& map, const AxisSample& y, const AxisSample& x,
                                   float* sum) {
  add_sample_of(map, y, x, sum);
}
FRCNN_MULTIVERSION void add_sample(const Map<Bf16>& map, const AxisSample& y, const AxisSample& x,
                                   float* sum) {
  add_sample_of(map, y, x, sum);
}

// `sum` has room for one number a channel.
template <class T>
void align_bin(const Map<T>& map, const OwnMap& own, const RoiGrid& down, const RoiGrid& across, int ph,
               int pw, float* sum, T* dst) {
  std::fill_n(sum, map.channels, 0.0f);
  const SampleRange rows = samples_near_map(down, ph, own.rows);
  const SampleRange columns = samples_near_map(across, pw, own.columns);
  for (int iy = rows.begin; iy < rows.end; ++iy) {
    const AxisSample y = axis_sample(sample_at(down, ph, iy), own.rows);
    if (!y.inside) continue;
    for (int ix = columns.begin; ix < columns.end; ++ix) {
      const AxisSample x = axis_sample(sample_at(across, pw, ix), own.columns);
      if (x.inside) add_sample(map, y, x, sum);
    }
  }
  const auto samples = static_cast<float>(std::max<std::int64_t>(1, std::int64_t{down.grid} * across.grid));
  for (std::int64_t i = 0; i < map.channels; ++i) dst[i] = from_float<T>(sum[i] / samples);
}

}  // namespace

// A RoI whose image index names no image of the batch gives zeros, as does one with a NaN coordinate and a
// map without cells.
Prepared prepare(const RoiAlign& op, const KernelSpec& spec, const Settings& settings) {
  const Shape features = spec.in[0].shape;
  const std::int64_t count = spec.in[1].shape[0];
  const int threads =
      static_cast<int>(std::clamp<std::int64_t>(settings.threads, 1, std::max<std::int64_t>(count, 1)));
  Carver carver;
  for (int i = 0; i < threads; ++i) carver.take<float>(features[3]);
  const DType dtype = one_storage(spec.in[0].dtype, spec.out[0].dtype, "roi_align");
  return with_storage(dtype, "roi_align", [&](auto stored) {
    using T = typename decltype(stored)::type;
    Prepared prepared;
    prepared.implementation = "plain";
    prepared.workspace_bytes = carver.used();
    prepared.run = [op, features, count, threads](const KernelArgs& args) {
      const std::int64_t channels = features[3], map_size = features.row();
      const std::int64_t out_size = op.pooled_h * op.pooled_w * channels;
      const auto* map_sizes = args.in.size() > 2 ? args.in[2].as<const std::int32_t>() : nullptr;
      parallel_for(count, threads, [&](std::int64_t begin, std::int64_t end, int chunk) {
        Carver memory(args.workspace);
        for (int i = 0; i < chunk; ++i) memory.take<float>(channels);
        float* const sum = memory.take<float>(channels);
        for (std::int64_t r = begin; r < end; ++r) {
          const float* roi = args.in[1].as<const float>() + r * 5;
          T* dst = args.out[0].as<T>() + r * out_size;
          const std::int64_t image = roi_image(roi[0], features[0]);
          const OwnMap own = own_map(image < 0 ? nullptr : feature_sizes(map_sizes, image),
                                     static_cast<int>(features[1]), static_cast<int>(features[2]));
          if (image < 0 || map_size == 0 || own.rows == 0 || own.columns == 0) {
            std::fill_n(dst, out_size, T{});
            continue;
          }
          const Map<T> map{args.in[0].as<const T>() + image * map_size, static_cast<int>(features[2]),
                           channels};
          const RoiGrid across =
              roi_grid(roi[1], roi[3], op.spatial_scale, op.pooled_w, op.sampling_ratio, op.aligned);
          const RoiGrid down =
              roi_grid(roi[2], roi[4], op.spatial_scale, op.pooled_h, op.sampling_ratio, op.aligned);
          for (int ph = 0; ph < op.pooled_h; ++ph) {
            for (int pw = 0; pw < op.pooled_w; ++pw, dst += channels)
              align_bin(map, own, down, across, ph, pw, sum, dst);
          }
        }
      });
    };
    return prepared;
  });
}

}  // namespace frcnn::cpu
