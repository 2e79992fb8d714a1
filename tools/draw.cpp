#include "draw.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "stroke_font.h"

namespace frcnn {
namespace {

struct Rect { int x1, y1, x2, y2; };           // inclusive

// Sizes that everything drawn follows, from the image's own.
struct Style {
  int line;
  float cap, stroke;
  int pad_x, pad_y, tag_height;
};

Style style_for(const Image& image) {
  const double side = std::sqrt(static_cast<double>(image.width) * image.height);
  Style style{};
  style.line = std::max(1, static_cast<int>(std::lround(side / 260)));
  style.cap = static_cast<float>(std::clamp(std::lround(side / 54), 7L, 60L));
  style.stroke = std::max(1.25f, style.cap * 0.155f);
  style.pad_x = static_cast<int>(std::lround(style.cap * 0.5f)) + 1;
  style.pad_y = static_cast<int>(std::lround(style.cap * 0.42f));
  style.tag_height = static_cast<int>(style.cap) + 2 * style.pad_y + 1;
  return style;
}

void fill(Image& image, Rect area, Colour colour, float opacity) {
  area = {std::max(area.x1, 0), std::max(area.y1, 0), std::min(area.x2, image.width - 1), std::min(area.y2, image.height - 1)};
  for (int y = area.y1; y <= area.y2; ++y) {
    std::uint8_t* pixel = image.bgr.data() + 3 * (static_cast<std::size_t>(y) * static_cast<std::size_t>(image.width));
    for (int x = area.x1; x <= area.x2; ++x) {
      for (std::size_t c = 0; c < 3; ++c) {
        std::uint8_t& value = pixel[3 * static_cast<std::size_t>(x) + c];
        value = static_cast<std::uint8_t>(static_cast<float>(value) * (1 - opacity) + static_cast<float>(colour[c]) * opacity + 0.5f);
      }
    }
  }
}

// The band of `width` pixels just inside of `outer`, in four parts that do not overlap.
void frame(Image& image, Rect outer, int width, Colour colour, float opacity) {
  const Rect inner{outer.x1 + width, outer.y1 + width, outer.x2 - width, outer.y2 - width};
  if (inner.x1 > inner.x2 || inner.y1 > inner.y2) return fill(image, outer, colour, opacity);
  fill(image, {outer.x1, outer.y1, outer.x2, inner.y1 - 1}, colour, opacity);
  fill(image, {outer.x1, inner.y2 + 1, outer.x2, outer.y2}, colour, opacity);
  fill(image, {outer.x1, inner.y1, inner.x1 - 1, inner.y2}, colour, opacity);
  fill(image, {inner.x2 + 1, inner.y1, outer.x2, inner.y2}, colour, opacity);
}

int pixel_of(float value, int size) {
  return static_cast<int>(std::lround(std::clamp(value, 0.0f, static_cast<float>(size - 1))));
}

double shared_area(const Rect& a, const Rect& b) {
  const int width = std::min(a.x2, b.x2) - std::max(a.x1, b.x1) + 1, height = std::min(a.y2, b.y2) - std::max(a.y1, b.y1) + 1;
  return width > 0 && height > 0 ? static_cast<double>(width) * height : 0;
}

// Where a tag of width x height covers least of the tags that lie already: on the frame's top edge at its left end if
// free, else at the next best of the frame's corners, outside before inside.
Rect place_tag(const Image& image, const Rect& box, int width, int height, const std::vector<Rect>& taken) {
  const int right = box.x2 - width + 1, above = box.y1 - height, below = box.y2 + 1;
  const int inside_top = box.y1, inside_bottom = box.y2 - height + 1;
  const std::array<std::array<int, 2>, 8> corners{{{box.x1, above}, {right, above}, {box.x1, inside_top}, {box.x1, below},
                                                   {right, below}, {right, inside_top}, {box.x1, inside_bottom},
                                                   {right, inside_bottom}}};
  Rect best{};
  double least = -1;
  for (std::size_t i = 0; i < corners.size(); ++i) {
    const int x = std::clamp(corners[i][0], 0, std::max(0, image.width - width));
    const int y = std::clamp(corners[i][1], 0, std::max(0, image.height - height));
    const Rect place{x, y, x + width - 1, y + height - 1};
    double cost = static_cast<double>(i);
    if (y != corners[i][1]) cost += 4;                           // pushed in from above or below: over the picture
    for (const Rect& other : taken) cost += shared_area(place, other);
    if (least < 0 || cost < least) {
      least = cost;
      best = place;
    }
  }
  return best;
}

}  // namespace

Colour class_colour(int class_id) {
  // Ten that differ in hue and in lightness, then hues that step by the golden ratio and so never repeat.
  static constexpr std::array<Colour, 10> first{{{60, 76, 231}, {219, 152, 52}, {80, 200, 60}, {24, 178, 248}, {206, 86, 176},
                                                 {196, 196, 24}, {150, 110, 255}, {30, 105, 210}, {40, 230, 200}, {200, 80, 90}}};
  const int index = std::max(0, class_id - 1);
  if (index < static_cast<int>(first.size())) return first[static_cast<std::size_t>(index)];
  const double turns = 0.61803398874989 * index;
  const double hue = 6 * (turns - std::floor(turns));
  const double strength = index % 2 ? 0.65 : 0.85, light = index % 3 ? 0.95 : 0.75;
  Colour colour{};
  for (std::size_t c = 0; c < 3; ++c) {                          // blue, green, red: the sixths 4, 2, 0 of the circle
    double away = std::abs(hue - static_cast<double>(4 - 2 * static_cast<int>(c)));
    away = std::min(away, 6 - away);
    const double share = std::clamp(2 - away, 0.0, 1.0);
    colour[c] = static_cast<std::uint8_t>(255 * light * (1 - strength * (1 - share)));
  }
  return colour;
}

void draw_detections(Image& image, std::span<const LabelledDetection> detections) {
  if (image.width < 1 || image.height < 1) return;
  const Style style = style_for(image);
  std::vector<const LabelledDetection*> order;                   // best first
  for (const LabelledDetection& detection : detections) order.push_back(&detection);
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->score > b->score; });

  struct Drawn { Rect box, tag; Colour colour; std::string text; };
  std::vector<Drawn> drawn;
  std::vector<Rect> taken;
  for (const LabelledDetection* detection : order) {
    const auto& [x1, y1, x2, y2] = detection->box;
    const Rect box{pixel_of(x1, image.width), pixel_of(y1, image.height), pixel_of(x2, image.width), pixel_of(y2, image.height)};
    std::string text = fmt::format("{} {:.2f}", detection->label, detection->score);
    const int width = static_cast<int>(std::ceil(text_width(text, style.cap))) + 2 * style.pad_x;
    const Rect tag = place_tag(image, box, width, style.tag_height, taken);
    taken.push_back(tag);
    drawn.push_back({box, tag, class_colour(detection->class_id), std::move(text)});
  }
  // Worst first, so that the best lie on top; all tags over all frames.
  std::reverse(drawn.begin(), drawn.end());
  constexpr Colour black{0, 0, 0};
  for (const Drawn& one : drawn) {
    // A faint dark edge on both sides keeps the colour visible on a background of the same colour.
    frame(image, {one.box.x1 - 1, one.box.y1 - 1, one.box.x2 + 1, one.box.y2 + 1}, style.line + 2, black, 0.35f);
    frame(image, one.box, style.line, one.colour, 1);
  }
  for (const Drawn& one : drawn) {
    const float lightness = 0.114f * one.colour[0] + 0.587f * one.colour[1] + 0.299f * one.colour[2];
    const Colour ink = lightness > 140 ? Colour{24, 16, 16} : Colour{255, 255, 255};
    frame(image, {one.tag.x1 - 1, one.tag.y1 - 1, one.tag.x2 + 1, one.tag.y2 + 1}, 1, black, 0.35f);
    fill(image, one.tag, one.colour, 1);
    draw_text(image, one.text, static_cast<float>(one.tag.x1 + style.pad_x), static_cast<float>(one.tag.y1 + style.pad_y) + 0.5f,
              style.cap, style.stroke, ink);
  }
}

}  // namespace frcnn
