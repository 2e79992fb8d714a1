// Gradients of RoI pooling (the release's rule) and RoI align at their README's tolerances.
#include "golden/box_ops.h"

using namespace frcnn;

namespace {

test::Tensor map_of(const SafetensorsFile& file, const std::string& name) {
  const auto& d = golden::tensor(file, name).shape;
  return golden::f32({d[0], d[2], d[3], d[1]}, golden::nhwc(file, name));
}

}  // namespace

TEST_CASE("golden: gradients of RoI pooling") {
  const auto file = golden::open("roi_pool.safetensors");
  if (!file) return;
  golden::Tally maxima("roi_pool maxima"), gradients("roi_pool gradients");
  const auto boxes = golden::values(*file, "rois");
  const auto count = static_cast<std::int64_t>(boxes.size() / 5);
  const test::Tensor rois = golden::f32({count, 5}, boxes);
  RoiPool op;
  op.save_argmax = true;
  op.spatial_scale = static_cast<float>(golden::number(*file, "spatial_scale"));
  for (const auto& match : golden::matching(*file, R"(grad_features_(neg_)?caffe_(\d+))")) {
    op.pooled_h = op.pooled_w = std::stoi(match[2]);
    const test::Tensor features = map_of(*file, match[1].empty() ? "features" : "features_neg");
    const Shape& s = features.spec.shape;
    const auto forward = test::run_op_any_threads(op, {features, rois});
    if (const std::string name = "argmax_" + match[1] + match[2]; file->find(name)) {
      const auto places = forward[1].as<std::int32_t>();
      maxima.equal(name,
                   golden::nhwc_to_nchw(std::vector<std::int32_t>(places.begin(), places.end()), count, s[3],
                                        op.pooled_h, op.pooled_w),
                   golden::values<std::int32_t>(*file, name));
    }
    const auto got =
        test::run_op_any_threads(RoiPoolBackward{op, s[0], s[1], s[2]},
                                 {map_of(*file, "grad_out_" + match[1] + match[2]), forward[1], rois});
    gradients.compare(match[0], golden::nhwc_to_nchw(golden::floats(got[0]), s[0], s[3], s[1], s[2]),
                      golden::values(*file, match[0]), 1e-4);
  }
  maxima.finish();
  gradients.finish();
}

TEST_CASE("golden: gradients of RoI align") {
  const auto file = golden::open("roi_align.safetensors");
  if (!file) return;
  golden::Tally tally("roi_align gradients");
  const auto boxes = golden::values(*file, "rois");
  const test::Tensor rois = golden::f32({static_cast<std::int64_t>(boxes.size() / 5), 5}, boxes);
  const auto& shape = golden::tensor(*file, "features").shape;
  for (const auto& match : golden::matching(*file, R"(grad_features_(a(\d)_s(\d+)))")) {
    RoiAlign op;
    op.pooled_h = op.pooled_w = static_cast<int>(golden::number(*file, "output_size"));
    op.spatial_scale = static_cast<float>(golden::number(*file, "spatial_scale"));
    op.aligned = match[2] == "1";
    op.sampling_ratio = std::stoi(match[3]);
    const auto got = test::run_op_any_threads(RoiAlignBackward{op, shape[0], shape[2], shape[3]},
                                              {map_of(*file, "grad_out_" + match[1]), rois});
    tally.compare(match[0],
                  golden::nhwc_to_nchw(golden::floats(got[0]), shape[0], shape[1], shape[2], shape[3]),
                  golden::values(*file, match[0]), 1e-3);
  }
  tally.finish();
}
