#include "golden/box_ops.h"
#include "golden/roi_vectors.h"

using namespace frcnn;

TEST_CASE("golden: RoI align") {
  const auto file = golden::open("roi_align.safetensors");
  if (!file) return;
  golden::Tally tally("roi_align");
  const auto rois = golden::values(*file, "rois"), features = golden::nhwc(*file, "features");
  const auto& shape = golden::tensor(*file, "features").shape;
  const auto count = static_cast<std::int64_t>(rois.size() / 5);
  RoiAlign op;
  op.spatial_scale = static_cast<float>(golden::number(*file, "spatial_scale"));
  op.pooled_h = op.pooled_w = static_cast<int>(golden::number(*file, "output_size"));
  for (const auto& match : golden::matching(*file, R"(out_a(\d)_s(\d+))")) {
    op.aligned = match[1] != "0";
    op.sampling_ratio = std::stoi(match[2]);
    const auto out = test::run_op_any_threads(
        op, {golden::f32({shape[0], shape[2], shape[3], shape[1]}, features), golden::f32({count, 5}, rois)});
    tally.compare(match[0],
                  golden::nhwc_to_nchw(golden::floats(out[0]), count, shape[1], op.pooled_h, op.pooled_w),
                  golden::values(*file, match[0]), 1e-4);
  }
  tally.finish();
}

TEST_CASE("golden: published RoI align vectors") {
  const auto json = golden::open_json("published_numbers.json");
  if (json.is_null()) return;
  golden::Tally tally("published roi_align");
  for (const auto& [key, entry] : json.items()) {
    std::smatch match;
    const std::regex pattern(R"(roi_align_(\d+)x(\d+)_scale([\d.]+)_sampling(\d+)(_aligned)?)");
    if (!std::regex_match(key, match, pattern)) continue;
    golden::check_roi_vectors(RoiAlign{std::stoi(match[1]), std::stoi(match[2]), std::stof(match[3]),
                                       std::stoi(match[4]), match[5].matched},
                              key, entry.at("cases"), 1e-6, tally);
  }
  // One box on a 5 x 5 ramp, with and without the half-cell shift.
  const auto& ramp = json.at("roi_align_detectron2");
  std::vector<float> features(25), roi{0};
  for (std::size_t i = 0; i < features.size(); ++i) features[i] = static_cast<float>(i);
  golden::flatten(ramp.at("box"), roi);
  for (const bool aligned : {false, true}) {
    const std::string name = aligned ? "aligned_true" : "aligned_false";
    std::vector<float> want;
    golden::flatten(ramp.at(name), want);
    const RoiAlign op{ramp.at("out_size").at(0), ramp.at("out_size").at(1), 1.0f, ramp.at("sampling_ratio"),
                      aligned};
    const auto out = test::run_op(op, {golden::f32({1, 5, 5, 1}, features), golden::f32({1, 5}, roi)});
    tally.compare(name, golden::floats(out[0]), want, 1e-5);
  }
  tally.finish();
}
