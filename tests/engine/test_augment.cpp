// Pixels and boxes are moved alike.
#include <set>
#include <tuple>

#include "catch.h"
#include "training/augment.h"

using namespace frcnn;

namespace {

// 7x5 pixels, each of its own colour.
Image picture() {
  Image image;
  image.width = 7;
  image.height = 5;
  for (int i = 0; i < 35; ++i)
    for (int c = 0; c < 3; ++c) image.bgr.push_back(static_cast<std::uint8_t>(i * 5 + c));
  return image;
}

std::set<std::tuple<int, int, int>> colours(const Image& image, const std::array<float, 4>& box) {
  std::set<std::tuple<int, int, int>> found;
  for (int y = static_cast<int>(box[1]); y <= static_cast<int>(box[3]); ++y)
    for (int x = static_cast<int>(box[0]); x <= static_cast<int>(box[2]); ++x) {
      const std::uint8_t* p = image.bgr.data() + (y * image.width + x) * 3;
      found.insert({p[0], p[1], p[2]});
    }
  return found;
}

}  // namespace

TEST_CASE("augment: a box holds the same pixels after every combination of flips and transposition") {
  const std::array<float, 4> boxes[] = {{1, 2, 3, 3}, {0, 0, 6, 4}, {6, 4, 6, 4}, {0, 1, 0, 1}};
  for (int bits = 0; bits < 8; ++bits) {
    Augmentation what;
    what.horizontal_flip = bits & 1;
    what.vertical_flip = bits & 2;
    what.transpose = bits & 4;
    const Image before = picture();
    Image after = picture();
    augment(after, what);
    CHECK(after.width == (what.transpose ? 5 : 7));
    CHECK(after.height == (what.transpose ? 7 : 5));
    for (const auto& box : boxes) CHECK(colours(after, augment(box, what, 7, 5)) == colours(before, box));
    if (bits == 1) CHECK(augment(boxes[0], what, 7, 5) == std::array<float, 4>{3, 2, 5, 3});
    if (bits == 4) CHECK(augment(boxes[0], what, 7, 5) == std::array<float, 4>{2, 1, 3, 3});
  }
}

TEST_CASE("augment: colours are scaled, shifted, rounded and cut off") {
  Image image = picture();
  Augmentation what;
  what.colour = true;
  what.gain = 1.5;
  what.shift = {-100, 0.25, 100};
  augment(image, what);
  const Image before = picture();
  for (std::size_t i = 0; i < image.bgr.size(); ++i) {
    const double wanted = std::clamp(std::nearbyint(1.5 * before.bgr[i] + what.shift[i % 3]), 0.0, 255.0);
    CHECK(image.bgr[i] == wanted);
  }
}

TEST_CASE("augment: draws follow the configuration, the seed and the place") {
  AugmentConfig config;
  config.horizontal_flip = config.vertical_flip = config.transpose = true;
  config.colour_gain = 0.1;
  config.colour_shift = 8;
  config.aspect_grouping = true;
  int flips = 0, turned = 0, coloured = 0;
  for (std::int64_t batch = 0; batch < 1000; ++batch) {
    const auto a = draw_augmentation(config, 3, batch, 0, 2), b = draw_augmentation(config, 3, batch, 1, 2);
    CHECK(a.transpose == b.transpose);  // or a batch would be wide and tall
    flips += a.horizontal_flip + a.vertical_flip + b.horizontal_flip + b.vertical_flip;
    turned += a.transpose;
    coloured += a.colour;
    CHECK((a.gain >= 0.9 && a.gain <= 1.1));
    for (const double shift : a.shift) CHECK((shift >= -8 && shift <= 8));
    const auto again = draw_augmentation(config, 3, batch, 0, 2);
    CHECK((again.gain == a.gain && again.shift == a.shift));
  }
  CHECK(std::abs(flips - 2000) < 160);
  CHECK(std::abs(turned - 500) < 80);
  CHECK(std::abs(coloured - 500) < 80);
  for (std::int64_t batch = 0; batch < 100; ++batch) {
    const auto none = draw_augmentation({false, false, false, 0, 0, true}, 3, batch, 0, 1);
    CHECK_FALSE((none.horizontal_flip || none.vertical_flip || none.transpose || none.colour));
    AugmentConfig only = config;
    only.vertical_flip = only.transpose = false;
    CHECK(draw_augmentation(only, 3, batch, 0, 1).horizontal_flip ==
          draw_augmentation(config, 3, batch, 0, 1).horizontal_flip);
  }
}
