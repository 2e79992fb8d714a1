// Flips, transposition and colour jitter of one image and its boxes.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "model_io/image_file.h"
#include "training/train_config.h"

namespace frcnn {

// What is done to one image, drawn from the seed and the image's place in the run.
struct Augmentation {
  bool horizontal_flip = false, vertical_flip = false, transpose = false;  // in this order
  bool colour = false;
  double gain = 1;
  std::array<double, 3> shift{};  // B, G, R levels
};

// Image `image` of batch `batch`. With several images to a batch and aspect grouping all of them are
// transposed or none, so that they stay all wide or all tall.
Augmentation draw_augmentation(const AugmentConfig& config, std::uint64_t seed, std::int64_t batch,
                               std::int64_t image, std::int64_t batch_size);

// Pixels become round(gain * x + shift), cut to 0..255.
void augment(Image& image, const Augmentation& what);

// The same for an inclusive box counted from 0 in an image that was width x height before.
std::array<float, 4> augment(std::array<float, 4> box, const Augmentation& what, int width, int height);

}  // namespace frcnn
