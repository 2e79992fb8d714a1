#include "training/augment.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "training/random_numbers.h"

namespace frcnn {
namespace {

void mirror_rows(Image& image) {
  for (int y = 0; y < image.height; ++y) {
    std::uint8_t* row =
        image.bgr.data() + static_cast<std::size_t>(y) * static_cast<std::size_t>(image.width) * 3;
    for (int left = 0, right = image.width - 1; left < right; ++left, --right)
      std::swap_ranges(row + left * 3, row + left * 3 + 3, row + right * 3);
  }
}

void mirror_columns(Image& image) {
  const auto row = static_cast<std::size_t>(image.width) * 3;
  for (int top = 0, bottom = image.height - 1; top < bottom; ++top, --bottom) {
    std::uint8_t* const a = image.bgr.data() + static_cast<std::size_t>(top) * row;
    std::swap_ranges(a, a + row, image.bgr.data() + static_cast<std::size_t>(bottom) * row);
  }
}

void transpose(Image& image) {
  std::vector<std::uint8_t> turned(image.bgr.size());
  const auto width = static_cast<std::size_t>(image.width), height = static_cast<std::size_t>(image.height);
  for (std::size_t y = 0; y < height; ++y)
    for (std::size_t x = 0; x < width; ++x)
      std::copy_n(image.bgr.data() + (y * width + x) * 3, 3, turned.data() + (x * height + y) * 3);
  image.bgr = std::move(turned);
  std::swap(image.width, image.height);
}

void jitter(Image& image, const Augmentation& what) {
  std::array<std::array<std::uint8_t, 256>, 3> table;
  for (std::size_t c = 0; c < 3; ++c)
    for (std::size_t level = 0; level < 256; ++level)
      table[c][level] = static_cast<std::uint8_t>(
          std::clamp(std::nearbyint(what.gain * static_cast<double>(level) + what.shift[c]), 0.0, 255.0));
  for (std::size_t i = 0; i < image.bgr.size(); i += 3)
    for (std::size_t c = 0; c < 3; ++c) image.bgr[i + c] = table[c][image.bgr[i + c]];
}

}  // namespace

Augmentation draw_augmentation(const AugmentConfig& config, std::uint64_t seed, std::int64_t batch,
                               std::int64_t image, std::int64_t batch_size) {
  // Every choice is drawn even where it is not wanted, so that switching one on leaves the others alone.
  const auto place = [&](std::int64_t i) { return static_cast<std::uint64_t>(batch * batch_size + i); };
  RandomDraws draws(seed, RandomStream::augment, place(image));
  Augmentation what;
  what.horizontal_flip = draws.chance() && config.horizontal_flip;
  what.vertical_flip = draws.chance() && config.vertical_flip;
  const bool own_transpose = draws.chance();
  what.colour = draws.chance() && (config.colour_gain > 0 || config.colour_shift > 0);
  what.gain = draws.between(1 - config.colour_gain, 1 + config.colour_gain);
  for (double& shift : what.shift) shift = draws.between(-config.colour_shift, config.colour_shift);
  what.transpose = own_transpose;
  if (config.aspect_grouping && batch_size > 1) {
    RandomDraws first(seed, RandomStream::augment, place(0));
    first.chance(), first.chance();
    what.transpose = first.chance();
  }
  what.transpose = what.transpose && config.transpose;
  return what;
}

void augment(Image& image, const Augmentation& what) {
  if (what.horizontal_flip) mirror_rows(image);
  if (what.vertical_flip) mirror_columns(image);
  if (what.transpose) transpose(image);
  if (what.colour) jitter(image, what);
}

std::array<float, 4> augment(std::array<float, 4> box, const Augmentation& what, int width, int height) {
  auto [x1, y1, x2, y2] = box;
  const auto last_x = static_cast<float>(width - 1), last_y = static_cast<float>(height - 1);
  if (what.horizontal_flip) {
    std::swap(x1, x2);
    x1 = last_x - x1;
    x2 = last_x - x2;
  }
  if (what.vertical_flip) {
    std::swap(y1, y2);
    y1 = last_y - y1;
    y2 = last_y - y2;
  }
  if (what.transpose) return {y1, x1, y2, x2};
  return {x1, y1, x2, y2};
}

}  // namespace frcnn
