// anchor_target.safetensors and proposal_target.safetensors: labels and indices exact, the rest at the
// README's tolerances.
#include <string>
#include <utility>

#include "detector/anchors.h"
#include "golden/box_ops.h"

using namespace frcnn;

namespace {

test::Tensor no_matter() { return test::i32({4}, {1, 0, 0, 0}); }  // everything is drawn

// a slowest, as the release keeps labels, from h, w, a.
template <class T>
std::vector<T> anchors_first(const std::vector<T>& from, std::int64_t cells, std::int64_t anchors) {
  return golden::nhwc_to_nchw(from, 1, anchors, cells, 1);
}

}  // namespace

TEST_CASE("golden: anchor targets") {
  const auto file = golden::open("anchor_target.safetensors");
  if (!file) return;
  golden::Tally labels("anchor labels"), targets("anchor targets"), weights("anchor weights");
  for (const auto& match : golden::matching(*file, R"((\w+)_labels)")) {
    const std::string& name = match[1];
    INFO(name);
    const auto& shape = golden::tensor(*file, name + "_bbox_targets").shape;  // 1, 4A, H, W
    const std::int64_t anchors = shape[1] / 4, cells = shape[2] * shape[3];
    ModelConfig config;
    if (anchors == 12) config.anchor_scales = {4, 8, 16, 32};  // the COCO models'
    AnchorTargets op;
    op.base_anchors = base_anchors(config);
    REQUIRE(static_cast<std::int64_t>(op.base_anchors.size()) == anchors);
    op.height = shape[2];
    op.width = shape[3];
    op.batch = 2 * anchors * cells;  // no subsampling: half of it holds every anchor
    op.positive_iou = golden::number(*file, "positive_overlap");
    op.negative_iou = golden::number(*file, "negative_overlap");
    op.allowed_border = golden::number(*file, "allowed_border");
    op.untouched = UntouchedBoxes::release;
    const auto boxes = golden::values(*file, name + "_gt_boxes");
    const auto count = static_cast<std::int32_t>(boxes.size() / 5);
    const auto got = test::run_op_any_threads(
        op, {golden::f32({1, count, 5}, boxes), test::i32({1}, {count}),
             golden::f32({1, 3}, golden::values(*file, name + "_im_info")), no_matter()});
    labels.equal(name, anchors_first(golden::ints(got[0]), cells, anchors),
                 golden::values<std::int32_t>(*file, name + "_labels"));
    const auto compare = [&](golden::Tally& tally, const char* part, const test::Tensor& map,
                             double allowed) {
      tally.compare(name + part, anchors_first(golden::floats(map), cells, 4 * anchors),
                    golden::values(*file, name + part), allowed);
    };
    compare(targets, "_bbox_targets", got[1], 1e-5);
    compare(weights, "_inside_weights", got[2], 1e-7);
    compare(weights, "_outside_weights", got[3], 1e-7);
  }
  labels.finish();
  targets.finish();
  weights.finish();
}

TEST_CASE("golden: RoI targets") {
  const auto file = golden::open("proposal_target.safetensors");
  if (!file) return;
  golden::Tally indices("indices of RoIs"), labels("RoI labels"), targets("RoI targets");
  for (const auto& match : golden::matching(*file, R"((\w+)_lo(\d+)_rois_out)")) {
    const std::string name = match[1] + "_lo" + match[2];
    INFO(name);
    const auto rois = golden::values(*file, match[1] + "_rois_in"),
               boxes = golden::values(*file, match[1] + "_gt_boxes");
    const auto count = static_cast<std::int32_t>(rois.size() / 5),
               truth = static_cast<std::int32_t>(boxes.size() / 5);
    RoiTargets op;
    op.classes = static_cast<std::int64_t>(golden::number(*file, "num_classes"));
    op.batch = 2 * (count + truth);  // half of it holds every candidate
    op.foreground_fraction = 0.5;
    op.foreground_iou = golden::number(*file, "fg_thresh");
    op.background_iou_high = golden::number(*file, "bg_thresh_hi");
    op.background_iou_low = std::stod(match[2]) / 100;
    for (std::size_t k = 0; k < 4; ++k) {
      op.means[k] = golden::metadata(*file, "normalize_means").at(k).get<float>();
      op.stds[k] = golden::metadata(*file, "normalize_stds").at(k).get<float>();
    }
    const auto got = test::run_op_any_threads(
        op, {golden::f32({count, 5}, rois), test::i32({1}, {count}), golden::f32({1, truth, 5}, boxes),
             test::i32({1}, {truth}), no_matter()});
    const std::int64_t rows = golden::ints(got[5])[0], columns = 4 * op.classes;
    // Which candidates were taken shows in their boxes.
    std::vector<float> expected;
    for (const std::int64_t i : golden::values<std::int64_t>(*file, name + "_keep_inds")) {
      const auto* box = i < count ? &rois[static_cast<std::size_t>(5 * i + 1)]
                                  : &boxes[static_cast<std::size_t>(5 * (i - count))];
      expected.push_back(0);
      expected.insert(expected.end(), box, box + 4);
    }
    indices.equal(name, golden::head(golden::floats(got[0]), rows, 5), expected);
    indices.equal(name, golden::head(golden::floats(got[0]), rows, 5),
                  golden::values(*file, name + "_rois_out"));
    labels.equal(name, golden::head(golden::ints(got[1]), rows, 1),
                 golden::values<std::int32_t>(*file, name + "_labels"));
    targets.compare(name, golden::head(golden::floats(got[2]), rows, columns),
                    golden::values(*file, name + "_bbox_targets"), 2e-4);
    targets.equal(name, golden::head(golden::floats(got[3]), rows, columns),
                  golden::values(*file, name + "_inside_weights"));
    targets.equal(name, golden::head(golden::floats(got[4]), rows, columns),
                  golden::values(*file, name + "_outside_weights"));
  }
  indices.finish();
  labels.finish();
  targets.finish();
}
