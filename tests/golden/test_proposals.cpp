// The whole proposal layer: decode_proposals, top_k and nms, with the parameters that the file states.
#include "detector/anchors.h"
#include "golden/box_ops.h"

using namespace frcnn;

namespace {

void check_proposals(const std::string& name) {
  const auto file = golden::open(name + ".safetensors");
  if (!file) return;
  golden::Tally tally(name);
  DecodeProposals decode;
  decode.feat_stride = static_cast<float>(golden::number(*file, "feat_stride"));
  decode.min_size = static_cast<float>(golden::number(*file, "min_size"));
  const TopK top_k{static_cast<std::int64_t>(golden::number(*file, "pre_nms_topN"))};
  const Nms nms{static_cast<float>(golden::number(*file, "nms_thresh")), Suppress::above,
                static_cast<std::int64_t>(golden::number(*file, "post_nms_topN"))};
  for (const auto& match : golden::matching(*file, R"(rpn_cls_prob_reshape_(\d+x\d+))")) {
    const std::string& size = match[1];
    const StoredTensor& stored = golden::tensor(*file, match[0]);
    const std::int64_t anchors = stored.shape[1] / 2, h = stored.shape[2], w = stored.shape[3];
    // The release's anchors: nine, or twelve for the COCO models.
    ModelConfig config;
    if (anchors == 12) config.anchor_scales = {4, 8, 16, 32};
    decode.base_anchors = base_anchors(config);
    REQUIRE(static_cast<std::int64_t>(decode.base_anchors.size()) == anchors);
    const auto candidates = test::run_op_any_threads(
        decode, {golden::f32({1, h, w, 2 * anchors}, golden::nhwc(*file, match[0])),
                 golden::f32({1, h, w, 4 * anchors}, golden::nhwc(*file, "rpn_bbox_pred_" + size)),
                 golden::f32({1, 3}, golden::values(*file, "im_info_" + size))});
    CHECK(golden::ints(candidates[2])[0] == 0);
    const auto best = test::run_op_any_threads(top_k, {candidates[0], candidates[1]});
    const auto rois = test::run_op_any_threads(nms, {best[0], best[1], best[2]});
    const std::int64_t count = golden::ints(rois[2])[0];
    tally.compare("rois_" + size, golden::head(golden::floats(rois[0]), count, 5),
                  golden::values(*file, "rois_" + size), 1e-3);
    tally.equal("scores_" + size, golden::head(golden::floats(rois[1]), count, 1),
                golden::values(*file, "scores_" + size));
  }
  tally.finish();
}

}  // namespace

TEST_CASE("golden: proposals as in testing") { check_proposals("proposal_test"); }

TEST_CASE("golden: proposals as in training") { check_proposals("proposal_train"); }
