#include "detector/anchors.h"

#include <cmath>

#include "catch.h"
#include "frcnn/error.h"

using namespace frcnn;
using Anchor = std::array<float, 4>;

TEST_CASE("the release's nine anchors") {
  const auto anchors = base_anchors(ModelConfig{});
  const std::vector<Anchor> want{{-84, -40, 99, 55}, {-176, -88, 191, 103},  {-360, -184, 375, 199},
                                 {-56, -56, 71, 71}, {-120, -120, 135, 135}, {-248, -248, 263, 263},
                                 {-36, -80, 51, 95}, {-80, -168, 95, 183},   {-168, -344, 183, 359}};
  CHECK(anchors == want);
}

TEST_CASE("anchors with half-integer corners, and sides that round half to even") {
  ModelConfig config;
  config.anchor_ratios = {0.5};
  config.anchor_scales = {1, 3, 8.5};
  const auto anchors = base_anchors(config);
  REQUIRE(anchors.size() == 3);
  // 22.63 rounds to 23, 11.5 to 12.
  CHECK(anchors[0] == Anchor{-3.5f, 2, 18.5f, 13});
  CHECK(anchors[1] == Anchor{7.5f - 34, 7.5f - 17.5f, 7.5f + 34, 7.5f + 17.5f});
  CHECK(anchors[2] == Anchor{7.5f - 97.25f, 7.5f - 50.5f, 7.5f + 97.25f, 7.5f + 50.5f});
  config.anchor_base_size = 9;  // sqrt(81 / 4) = 4.5 rounds down to 4, then 16
  config.anchor_ratios = {4};
  config.anchor_scales = {1};
  CHECK(base_anchors(config).front() == Anchor{2.5f, -3.5f, 5.5f, 11.5f});
}

TEST_CASE("the paper's anchors are not rounded") {
  ModelConfig config;
  config.anchor_rule = AnchorRule::paper;
  const auto anchors = base_anchors(config);
  REQUIRE(anchors.size() == 9);
  for (std::size_t i = 0; i < 9; ++i) {
    const double ratio = config.anchor_ratios[i / 3], side = 128 << (i % 3);
    const Anchor& a = anchors[i];
    CHECK(a[2] - a[0] + 1 == Approx(side / std::sqrt(ratio)).epsilon(1e-6));
    CHECK(a[3] - a[1] + 1 == Approx(side * std::sqrt(ratio)).epsilon(1e-6));
    CHECK(a[0] + a[2] == Approx(15).margin(1e-4));
    CHECK(a[1] + a[3] == Approx(15).margin(1e-4));
  }
  CHECK(anchors[3] == Anchor{7.5f - 63.5f, 7.5f - 63.5f, 7.5f + 63.5f, 7.5f + 63.5f});
}

TEST_CASE("anchors of nonsense are refused") {
  for (const double bad : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    ModelConfig config;
    config.anchor_scales = {8, bad};
    CHECK_THROWS_AS(base_anchors(config), Error);
    config = {};
    config.anchor_ratios = {bad};
    CHECK_THROWS_AS(base_anchors(config), Error);
    config = {};
    config.anchor_base_size = bad;
    CHECK_THROWS_AS(base_anchors(config), Error);
  }
  ModelConfig config;
  config.anchor_ratios.clear();
  CHECK_THROWS_AS(base_anchors(config), Error);
}
