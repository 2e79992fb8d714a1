// Which images each update sees. A pure function of the update's number, so that a run is resumed by that
// number alone.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

namespace frcnn {

// Endless passes over the images, each in an order of its own. With aspect grouping, wide (width >= height)
// and tall images are shuffled apart, cut into batches, and the batches are shuffled; a last batch that is
// not full is filled up with images of its kind that the pass had already. Without, passes follow each other
// without regard to batches. Safe to call from several threads.
class Sampler {
 public:
  // `wide` has one entry per image. Throws Error(invalid_argument) when there is none.
  Sampler(std::vector<bool> wide, std::int64_t batch_size, bool aspect_grouping, std::uint64_t seed);

  // Indices of the images of batch `number`, from 0.
  std::vector<std::size_t> batch(std::int64_t number) const;
  double epoch(std::int64_t number) const;  // passes made before batch `number`

 private:
  std::vector<std::uint32_t> grouped_order(std::int64_t epoch) const;
  std::uint32_t image_at(std::int64_t position) const;

  std::vector<std::uint32_t> wide_, tall_;
  std::int64_t count_, batch_size_;
  bool grouping_;
  std::uint64_t seed_;
  std::int64_t epoch_length_;  // images
  mutable std::mutex mutex_;
  mutable std::int64_t cached_epoch_ = -1;  // whose order is kept
  mutable std::vector<std::uint32_t> order_;
};

}  // namespace frcnn
