// Vectors of published_numbers.json for the RoI operators: cases of x [1,C,H,W], one roi, out [1,C,P,P].
#pragma once

#include <string>
#include <vector>

#include "golden/box_ops.h"

namespace frcnn::golden {

inline void flatten(const nlohmann::json& nested, std::vector<float>& to) {
  if (!nested.is_array()) {
    to.push_back(nested.get<float>());
    return;
  }
  for (const auto& item : nested) flatten(item, to);
}

template <typename O>
void check_roi_vectors(const O& op, const std::string& key, const nlohmann::json& cases, double tolerance,
                       Tally& tally) {
  for (const auto& item : cases) {
    const auto& x = item.at("x").at(0);
    const auto c = static_cast<std::int64_t>(x.size()), h = static_cast<std::int64_t>(x.at(0).size()),
               w = static_cast<std::int64_t>(x.at(0).at(0).size());
    std::vector<float> features, roi, want;
    flatten(x, features);
    flatten(item.at("roi"), roi);
    flatten(item.at("out"), want);
    const auto out =
        test::run_op(op, {f32({1, h, w, c}, nchw_to_nhwc(features, 1, c, h, w)), f32({1, 5}, roi)});
    tally.compare(key, nhwc_to_nchw(floats(out[0]), 1, c, op.pooled_h, op.pooled_w), want, tolerance);
  }
}

}  // namespace frcnn::golden
