#include "detector/anchors.h"

#include <cmath>
#include <string>

#include "frcnn/error.h"

namespace frcnn {
namespace {

// An inclusive box of sides w x h around (centre, centre), made in double and stored as float.
std::array<float, 4> around(double centre, double w, double h) {
  return {static_cast<float>(centre - 0.5 * (w - 1)), static_cast<float>(centre - 0.5 * (h - 1)),
          static_cast<float>(centre + 0.5 * (w - 1)), static_cast<float>(centre + 0.5 * (h - 1))};
}

// To the nearest integer, halves to the even one, whatever the thread's rounding mode.
double round_half_even(double v) {
  const double below = std::floor(v), fraction = v - below;
  if (fraction != 0.5) return fraction < 0.5 ? below : below + 1;
  return std::fmod(below, 2) == 0 ? below : below + 1;
}

void check_positive(const std::vector<double>& values, const char* what) {
  if (values.empty()) throw Error(ErrorCode::bad_model, std::string(what) + ": the list is empty");
  for (double v : values) {
    if (!(v > 0) || !std::isfinite(v)) {
      throw Error(ErrorCode::bad_model,
                  std::string(what) + ": " + std::to_string(v) + " is not a positive number");
    }
  }
}

}  // namespace

std::vector<std::array<float, 4>> base_anchors(const ModelConfig& config) {
  check_positive({config.anchor_base_size}, "anchor_base_size");
  check_positive(config.anchor_ratios, "anchor_ratios");
  check_positive(config.anchor_scales, "anchor_scales");
  const double base = config.anchor_base_size, centre = 0.5 * (base - 1);
  std::vector<std::array<float, 4>> anchors;
  for (double ratio : config.anchor_ratios) {
    // The release rounds the sides of the unscaled box of this ratio; the paper rounds nothing.
    double w = base / std::sqrt(ratio), h = base * std::sqrt(ratio);
    if (config.anchor_rule == AnchorRule::caffe) {
      w = round_half_even(std::sqrt(base * base / ratio));
      h = round_half_even(w * ratio);
    }
    for (double scale : config.anchor_scales) anchors.push_back(around(centre, w * scale, h * scale));
  }
  return anchors;
}

}  // namespace frcnn
