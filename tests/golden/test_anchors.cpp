#include "detector/anchors.h"
#include "golden/box_ops.h"

using namespace frcnn;

namespace {

std::vector<float> flat(const std::vector<std::array<float, 4>>& boxes) {
  std::vector<float> all;
  for (const auto& box : boxes) all.insert(all.end(), box.begin(), box.end());
  return all;
}

}  // namespace

TEST_CASE("golden: base anchors and their shifted grid") {
  const auto file = golden::open("anchors.safetensors");
  if (!file) return;
  golden::Tally tally("anchors");
  ModelConfig config;
  config.anchor_base_size = golden::number(*file, "base_size");
  config.anchor_ratios = golden::metadata(*file, "ratios").get<std::vector<double>>();
  config.anchor_scales = golden::metadata(*file, "scales").get<std::vector<double>>();
  const auto base = base_anchors(config);
  tally.equal("base_anchors", flat(base), golden::values(*file, "base_anchors"));

  for (const auto& name : golden::matching(*file, R"(base_anchors_coco(\d+))")) {
    ModelConfig coco = config;
    coco.anchor_scales = {4, 8, 16, 32};
    tally.equal(name[0], flat(base_anchors(coco)), golden::values(*file, name[0]));
  }

  // The grid is what decoding zero deltas starts from. Decoding moves the right edge by one pixel (no -1),
  // which is exact here, so the op itself shows the anchors when nothing is clipped or filtered on those two
  // edges.
  DecodeProposals op;
  op.base_anchors = base;
  op.feat_stride = static_cast<float>(golden::number(*file, "feat_stride"));
  op.min_size = 0;
  for (const auto& name : golden::matching(*file, R"(shifted_(\d+)x(\d+))")) {
    const std::int64_t h = std::stoll(name[1]), w = std::stoll(name[2]),
                       a = static_cast<std::int64_t>(base.size());
    const float height = 16.0f * static_cast<float>(h), width = 16.0f * static_cast<float>(w);
    const auto out = test::run_op(op, {golden::f32({1, h, w, 2 * a}, std::vector<float>(h * w * 2 * a, 0.5f)),
                                       golden::f32({1, h, w, 4 * a}, std::vector<float>(h * w * 4 * a, 0.0f)),
                                       golden::f32({1, 3}, {height, width, 1.0f})});
    std::vector<float> want = golden::values(*file, name[0]);
    for (std::size_t i = 0; i < want.size(); i += 4) {
      for (std::size_t k = 0; k < 4; ++k) {
        const float limit = (k % 2 ? height : width) - 1, edge = want[i + k] + (k < 2 ? 0.0f : 1.0f);
        want[i + k] = std::clamp(edge, 0.0f, limit);
      }
    }
    tally.equal(name[0], golden::floats(out[0]), want);
  }
  tally.finish();
}

TEST_CASE("golden: the published nine anchors") {
  const auto json = golden::open_json("published_numbers.json");
  if (json.is_null()) return;
  golden::Tally tally("published anchors");
  for (const auto& [key, entry] : json.items()) {
    if (key.rfind("anchors_", 0) != 0) continue;
    std::vector<float> want;  // the list is 1-based
    for (const auto& box : entry.at("matlab_1based")) {
      for (const auto& v : box) want.push_back(v.get<float>() - 1);
    }
    tally.equal(key, flat(base_anchors(ModelConfig{})), want);
  }
  tally.finish();
}
