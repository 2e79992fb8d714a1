// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011): random
// words from a counter and a key, without state, so that every device and every thread order draws the same
// ones.
#pragma once

#include <cstdint>

#include "box_math.h"

namespace frcnn {

struct PhiloxCounter {
  std::uint32_t word[4];
};

// Which draws of a training run a word belongs to: the last word of the counter.
enum class RandomStream : std::uint32_t {
  positive_anchors = 0,
  negative_anchors = 1,
  foreground_rois = 2,
  background_rois = 3,
  dropout = 16,  // + the layer's number
  shuffle = 256,
  augment = 257,
  initial_weights = 258,
};

FRCNN_HD inline PhiloxCounter philox(PhiloxCounter counter, std::uint64_t key) {
  auto low = static_cast<std::uint32_t>(key), high = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * counter.word[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57u} * counter.word[2];
    counter = {{static_cast<std::uint32_t>(b >> 32) ^ counter.word[1] ^ low, static_cast<std::uint32_t>(b),
                static_cast<std::uint32_t>(a >> 32) ^ counter.word[3] ^ high, static_cast<std::uint32_t>(a)}};
    low += 0x9E3779B9u;   // the golden ratio
    high += 0xBB67AE85u;  // sqrt(3) - 1
  }
  return counter;
}

// What a step's random choices start from, as kernels get it: an i32 [4] tensor of these words.
struct RandomKey {
  std::uint32_t seed_low, seed_high, step, image;

  FRCNN_HD std::uint64_t seed() const { return std::uint64_t{seed_high} << 32 | seed_low; }
  // The sampling key of one candidate of one image of the batch: the smallest ones are drawn, equal ones by
  // index.
  FRCNN_HD std::uint32_t of(std::uint32_t batch_image, std::uint32_t candidate, RandomStream stream) const {
    return philox({{step, image + batch_image, candidate, static_cast<std::uint32_t>(stream)}}, seed())
        .word[0];
  }
};
static_assert(sizeof(RandomKey) == 16);

// Words of the elements 4 block ... 4 block + 3 of a dropout layer's map.
FRCNN_HD inline PhiloxCounter dropout_words(const RandomKey& key, std::int64_t block, std::uint32_t layer) {
  return philox({{key.step, key.image, static_cast<std::uint32_t>(block),
                  static_cast<std::uint32_t>(RandomStream::dropout) + layer}},
                key.seed());
}

// An element whose word is smaller falls: ratio * 2^32.
FRCNN_HD inline std::uint32_t dropout_limit(float ratio) {
  return static_cast<std::uint32_t>(static_cast<double>(ratio) * 4294967296.0);
}

}  // namespace frcnn
