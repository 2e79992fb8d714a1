#include "stroke_font.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace frcnn {
namespace {

// Glyphs for ' ' to '~', drawn for this program. Strokes are separated by blanks; a point is two digits: x (decimal,
// rightwards) and y (hexadecimal, downwards: 0 the top of capitals, 3 of small letters, 9 the baseline, c the end of
// descenders). A plain stroke is a chain of straight lines, one point alone a dot; '~' begins a smooth curve from the first
// point to the last that the others pull towards them, '@' one that closes on itself.
constexpr std::array<const char*, 95> glyphs = {
    "", "0006 09", "0002 2022", "1019 4049 0353 0656", "~4241010445480807 2029",                    //   ! " # $
    "0950 @00202303 @36565939", "~591210404305094956", "0002", "~2003082b", "~0023280b",            // % & ' ( )
    "2026 0145 0541", "2428 0646", "190b", "0636", "09", "0940",                                    // * + , - . /
    "@00505909", "022029", "~0200505409 0959", "~0100505424 ~2454590908", "400656 4049",            // 0 1 2 3 4
    "500004 ~0454590908", "@04545909 ~400006", "005019", "@00505404 @04545909", "@00505505 ~535919",  // 5 6 7 8 9
    "04 09", "14 190b", "430649", "0545 0747", "034609", "~020040432426 29",                        // : ; < = > ?
    "@33636636 ~63678780000979",                                                                    // @
    "093069 1656", "0009 ~002050542404 ~042464692909", "~626000096967", "0009 ~003060693909",       // A B C D
    "60000969 0454", "600009 0454", "~626000096965 6535", "0009 6069 0464", "0009",                 // E F G H I
    "4046 ~46490907", "0009 6006 2469", "000959", "0900366069", "09006960", "@00606909",            // J K L M N O
    "0009 ~003060653505", "@00606909 4769", "0009 ~003060653505 3569", "~6260000465690907",         // P Q R S
    "0060 3039", "0005 ~05096965 6560", "003960", "0029426980", "0069 6009", "003460 3439",         // T U V W X Y
    "00600969", "20000b2b", "0049", "00202b0b", "032043", "0a5a", "0022",                           // Z [ \ ] ^ _ `
    "@03535909 5359", "0009 @03535909", "~545303095958", "5059 @03535909", "0656 ~565303095958",    // a b c d e
    "~402023 2329 0343", "@03535909 5359 ~595c0c0b", "0009 ~05035356 5659", "0309 00",              // f g h i
    "2329 ~292c0c 20", "0009 4307 1659", "0007 ~070929", "0309 ~05034346 4649 ~45438386 8689",      // j k l m
    "0309 ~05035356 5659", "@03535909", "030c @03535909", "535c @03535909", "0309 ~060333",         // n o p q r
    "~4443030646490908", "1117 ~171939 0333", "0306 ~06095956 5359", "032943", "0329446983",        // s t u v w
    "0349 4309", "0329 431c", "03430949", "~30101605 ~05141b3b", "000b", "~00202635 ~35242b0b",     // x y z { | }
    "~07044845",                                                                                    // ~
};

constexpr float units_per_cap = 9, letter_gap = 2.6f, blank_width = 2.2f;

struct Point { float x, y; };
struct Segment { Point a, b; };

const char* glyph_of(char c) {
  const auto code = static_cast<unsigned char>(c);
  return glyphs[code >= ' ' && code <= '~' ? code - std::size_t{' '} : std::size_t{'?' - ' '}];
}

float advance_of(char c) {
  if (c == ' ') return blank_width + letter_gap;
  float right = 0;
  const std::string_view glyph = glyph_of(c);
  for (std::size_t i = 0; i + 1 < glyph.size();) {
    if (glyph[i] < '0' || glyph[i] > '9') { ++i; continue; }
    right = std::max(right, static_cast<float>(glyph[i] - '0'));
    i += 2;
  }
  return right + letter_gap;
}

Point between(Point a, Point b, float t) { return {a.x + (b.x - a.x) * t, a.y + (b.y - a.y) * t}; }

// A quadratic curve from `from` to `to`, pulled towards `control`, as short straight segments.
void append_curve(std::vector<Segment>& segments, Point from, Point control, Point to) {
  constexpr int pieces = 6;
  Point last = from;
  for (int i = 1; i <= pieces; ++i) {
    const float t = static_cast<float>(i) / pieces;
    const Point next = between(between(from, control, t), between(control, to, t), t);
    segments.push_back({last, next});
    last = next;
  }
}

void append_stroke(std::vector<Segment>& segments, char kind, const std::vector<Point>& points) {
  const std::size_t n = points.size();
  if (kind == '@') {
    for (std::size_t i = 0; i < n; ++i) {
      const Point before = points[(i + n - 1) % n], after = points[(i + 1) % n];
      append_curve(segments, between(before, points[i], 0.5f), points[i], between(points[i], after, 0.5f));
    }
  } else if (kind == '~' && n > 2) {
    for (std::size_t i = 1; i + 1 < n; ++i) {
      append_curve(segments, i == 1 ? points[0] : between(points[i - 1], points[i], 0.5f), points[i],
                   i + 2 == n ? points[n - 1] : between(points[i], points[i + 1], 0.5f));
    }
  } else {
    if (n == 1) segments.push_back({points[0], points[0]});
    for (std::size_t i = 0; i + 1 < n; ++i) segments.push_back({points[i], points[i + 1]});
  }
}

std::vector<Segment> outline_of(char c, float left, float top, float scale) {
  std::vector<Segment> segments;
  std::vector<Point> points;
  char kind = ' ';
  const std::string_view glyph = glyph_of(c);
  for (std::size_t i = 0; i < glyph.size();) {
    if (glyph[i] == '~' || glyph[i] == '@') {
      kind = glyph[i++];
    } else if (glyph[i] == ' ') {
      append_stroke(segments, kind, points);
      points.clear();
      kind = ' ';
      ++i;
    } else {
      const char y = glyph[i + 1];
      points.push_back({left + scale * static_cast<float>(glyph[i] - '0'),
                        top + scale * static_cast<float>(y >= 'a' ? y - 'a' + 10 : y - '0')});
      i += 2;
    }
  }
  append_stroke(segments, kind, points);
  return segments;
}

float squared_distance(Point p, const Segment& s) {
  const float dx = s.b.x - s.a.x, dy = s.b.y - s.a.y;
  const float length = dx * dx + dy * dy;
  const float t = length > 0 ? std::clamp(((p.x - s.a.x) * dx + (p.y - s.a.y) * dy) / length, 0.0f, 1.0f) : 0.0f;
  const float ex = p.x - s.a.x - t * dx, ey = p.y - s.a.y - t * dy;
  return ex * ex + ey * ey;
}

// A pixel is covered by how far its centre lies inside the stroke's outline, one pixel wide from none to all.
void paint(Image& image, const std::vector<Segment>& segments, float radius, Colour colour) {
  if (segments.empty()) return;
  float x1 = 1e9f, y1 = 1e9f, x2 = -1e9f, y2 = -1e9f;
  for (const Segment& s : segments) {
    x1 = std::min({x1, s.a.x, s.b.x}), x2 = std::max({x2, s.a.x, s.b.x});
    y1 = std::min({y1, s.a.y, s.b.y}), y2 = std::max({y2, s.a.y, s.b.y});
  }
  const float margin = radius + 1;
  const int left = std::max(0, static_cast<int>(std::floor(x1 - margin)));
  const int right = std::min(image.width - 1, static_cast<int>(std::ceil(x2 + margin)));
  const int top = std::max(0, static_cast<int>(std::floor(y1 - margin)));
  const int bottom = std::min(image.height - 1, static_cast<int>(std::ceil(y2 + margin)));
  for (int y = top; y <= bottom; ++y) {
    for (int x = left; x <= right; ++x) {
      const Point centre{static_cast<float>(x) + 0.5f, static_cast<float>(y) + 0.5f};
      float nearest = 1e18f;
      for (const Segment& s : segments) nearest = std::min(nearest, squared_distance(centre, s));
      const float cover = std::clamp(radius + 0.5f - std::sqrt(nearest), 0.0f, 1.0f);
      if (cover <= 0) continue;
      std::uint8_t* pixel = image.bgr.data() + 3 * (static_cast<std::size_t>(y) * static_cast<std::size_t>(image.width) +
                                                    static_cast<std::size_t>(x));
      for (std::size_t c = 0; c < 3; ++c) {
        const float mixed = static_cast<float>(pixel[c]) * (1 - cover) + static_cast<float>(colour[c]) * cover;
        pixel[c] = static_cast<std::uint8_t>(mixed + 0.5f);
      }
    }
  }
}

}  // namespace

float text_width(std::string_view text, float cap_height) {
  float units = 0;
  for (const char c : text) units += advance_of(c);
  return text.empty() ? 0 : (units - letter_gap) * cap_height / units_per_cap;
}

void draw_text(Image& image, std::string_view text, float left, float top, float cap_height, float thickness, Colour colour) {
  const float scale = cap_height / units_per_cap;
  for (const char c : text) {
    paint(image, outline_of(c, left, top, scale), thickness / 2, colour);
    left += advance_of(c) * scale;
  }
}

}  // namespace frcnn
