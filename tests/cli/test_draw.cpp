// Painting boxes and labels. The sources are compiled in: they belong to the command, not to the library.
#include "../../tools/draw.cpp"
#include "../../tools/stroke_font.cpp"

#include <set>

#include "catch.h"

namespace {

frcnn::Image plain(int width, int height, std::uint8_t grey) {
  frcnn::Image image;
  image.width = width;
  image.height = height;
  image.bgr.assign(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3, grey);
  return image;
}

frcnn::Colour at(const frcnn::Image& image, int x, int y) {
  const std::size_t i = 3 * static_cast<std::size_t>(y * image.width + x);
  return {image.bgr[i], image.bgr[i + 1], image.bgr[i + 2]};
}

int changed(const frcnn::Image& a, const frcnn::Image& b) {
  int count = 0;
  for (int y = 0; y < a.height; ++y) {
    for (int x = 0; x < a.width; ++x) count += at(a, x, y) != at(b, x, y);
  }
  return count;
}

}  // namespace

TEST_CASE("draw: the frame has the class's colour and leaves the inside alone") {
  frcnn::Image image = plain(640, 480, 128);
  const std::vector<frcnn::LabelledDetection> found{{"cell", 3, 0.97f, {200, 150, 400, 300}}};
  frcnn::draw_detections(image, found);
  const frcnn::Colour colour = frcnn::class_colour(3), grey{128, 128, 128};
  for (const auto& [x, y] : {std::pair{200, 200}, {400, 200}, {300, 300}, {300, 150}, {201, 299}}) CHECK(at(image, x, y) == colour);
  CHECK(at(image, 300, 225) == grey);
  CHECK(at(image, 100, 100) == grey);
  CHECK(at(image, 202, 140) == colour);          // the tag stands on the frame's top edge
}

TEST_CASE("draw: boxes at and beyond the border, tiny images and odd labels stay within the picture") {
  for (const auto& [width, height] : {std::pair{1, 1}, {1, 300}, {300, 1}, {7, 5}, {640, 480}, {2000, 1500}}) {
    frcnn::Image image = plain(width, height, 200);
    const frcnn::Image before = image;
    const float w = static_cast<float>(width), h = static_cast<float>(height);
    const std::vector<frcnn::LabelledDetection> found{{"a", 1, 1.0f, {0, 0, w - 1, h - 1}},
                                                      {"b", 2, 0.5f, {-1e30f, -50, 1e30f, h + 50}},
                                                      {"inverted", 3, 0.4f, {w, h, 0, 0}},
                                                      {"long label with \xc3\xa9 and \x01", 1000000, 0.3f, {w / 2, h / 2, w / 2, h / 2}},
                                                      {"", -5, 0.2f, {w, 0, w, 0}}};
    frcnn::draw_detections(image, found);        // the sanitizers see any write outside
    CHECK(image.bgr.size() == before.bgr.size());
    CHECK(changed(image, before) > 0);
  }
}

TEST_CASE("draw: every letter is visible and its own") {
  std::set<std::vector<std::uint8_t>> pictures;
  for (char c = '!'; c <= '~'; ++c) {
    frcnn::Image image = plain(40, 40, 255);
    const frcnn::Image before = image;
    frcnn::draw_text(image, std::string(1, c), 8, 6, 18, 2.5f, {0, 0, 0});
    INFO(c);
    CHECK(changed(image, before) >= 6);
    CHECK(pictures.insert(image.bgr).second);
    CHECK(frcnn::text_width(std::string(1, c), 18) <= 20);
  }
  CHECK(frcnn::text_width("", 10) == 0);
  CHECK(frcnn::text_width("ab", 10) > frcnn::text_width("a", 10) + frcnn::text_width("b", 10));
}

TEST_CASE("draw: tags keep out of each other's way, and equal input gives equal pixels") {
  const std::vector<frcnn::LabelledDetection> found{{"cat", 1, 0.9f, {100, 100, 300, 300}}, {"dog", 2, 0.8f, {100, 100, 300, 300}},
                                                    {"cow", 3, 0.7f, {100, 100, 300, 300}}, {"pig", 4, 0.6f, {100, 100, 300, 300}}};
  frcnn::Image image = plain(640, 480, 90), again = image;
  frcnn::draw_detections(image, found);
  frcnn::draw_detections(again, found);
  CHECK(image.bgr == again.bgr);
  // Each tag is about 70 x 20 pixels of its colour; one that another covered would show far less.
  for (int id = 1; id <= 4; ++id) {
    int count = 0;
    for (int y = 0; y < image.height; ++y) {
      for (int x = 0; x < image.width; ++x) count += at(image, x, y) == frcnn::class_colour(id);
    }
    INFO("class " << id);
    CHECK(count > 600);
  }
}

TEST_CASE("draw: the colours of the first thirty classes differ") {
  std::set<frcnn::Colour> colours;
  for (int id = 1; id <= 30; ++id) CHECK(colours.insert(frcnn::class_colour(id)).second);
}
