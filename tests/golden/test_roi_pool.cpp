#include "golden/box_ops.h"
#include "golden/roi_vectors.h"

using namespace frcnn;

TEST_CASE("golden: RoI pooling") {
  const auto file = golden::open("roi_pool.safetensors");
  if (!file) return;
  golden::Tally tally("roi_pool");
  const auto rois = golden::values(*file, "rois");
  RoiPool op;
  op.spatial_scale = static_cast<float>(golden::number(*file, "spatial_scale"));
  for (const auto& match : golden::matching(*file, R"(out_(neg_)?(\d+))")) {
    const std::string features = match[1].empty() ? "features" : "features_neg";
    const auto& shape = golden::tensor(*file, features).shape;
    op.pooled_h = op.pooled_w = std::stoi(match[2]);
    const auto count = static_cast<std::int64_t>(rois.size() / 5);
    const auto out = test::run_op_any_threads(
        op, {golden::f32({shape[0], shape[2], shape[3], shape[1]}, golden::nhwc(*file, features)),
             golden::f32({count, 5}, rois)});
    tally.equal(match[0],
                golden::nhwc_to_nchw(golden::floats(out[0]), count, shape[1], op.pooled_h, op.pooled_w),
                golden::values(*file, match[0]));
  }
  tally.finish();
}

TEST_CASE("golden: published RoI pooling vectors") {
  const auto json = golden::open_json("published_numbers.json");
  if (json.is_null()) return;
  golden::Tally tally("published roi_pool");
  for (const auto& [key, entry] : json.items()) {
    std::smatch match;
    const std::regex pattern(R"(roi_pool_(\d+)x(\d+)_scale([\d.]+))");
    if (!std::regex_match(key, match, pattern)) continue;
    golden::check_roi_vectors(RoiPool{std::stoi(match[1]), std::stoi(match[2]), std::stof(match[3])}, key,
                              entry.at("cases"), 0, tally);
  }
  tally.finish();
}
