// Boxes, labels and scores painted into an image.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "model_io/detections_json.h"
#include "model_io/image_file.h"

namespace frcnn {

using Colour = std::array<std::uint8_t, 3>;    // B, G, R

// A class's colour: the same in every image and run; neighbouring classes differ clearly.
Colour class_colour(int class_id);

// Paints every detection: a frame in its class's colour and a tag "label 0.97". Line width and letters grow with the
// image. The best-scored boxes lie on top; tags stay inside the image and keep out of each other's way where there is
// room. Boxes are in pixels of `image`; parts outside are cut off. Characters beyond ASCII are drawn as '?'.
void draw_detections(Image& image, std::span<const LabelledDetection> detections);

}  // namespace frcnn
