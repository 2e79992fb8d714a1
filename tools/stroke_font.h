// A small typeface made of strokes, drawn smoothly at any size. Printable ASCII.
#pragma once

#include <string_view>

#include "draw.h"

namespace frcnn {

// Heights in units of the cap height; a line of text from the top of its capitals to the end of its descenders is
// 1 + text_descent high.
inline constexpr float text_descent = 1.0f / 3.0f;

// Pixels from the left edge of the first letter to the right edge of the last.
float text_width(std::string_view text, float cap_height);

// (left, top): of the capitals, in pixels. `thickness` of the strokes in pixels. Drawn over what is there; cut off at
// the image's border.
void draw_text(Image& image, std::string_view text, float left, float top, float cap_height, float thickness, Colour colour);

}  // namespace frcnn
