#include "training/sampler.h"

#include "frcnn/error.h"
#include "training/random_numbers.h"

namespace frcnn {
namespace {

std::int64_t rounded_up(std::size_t count, std::int64_t multiple) {
  return (static_cast<std::int64_t>(count) + multiple - 1) / multiple * multiple;
}

}  // namespace

Sampler::Sampler(std::vector<bool> wide, std::int64_t batch_size, bool aspect_grouping, std::uint64_t seed)
    : count_(static_cast<std::int64_t>(wide.size())),
      batch_size_(batch_size),
      grouping_(aspect_grouping && batch_size > 1),
      seed_(seed) {
  if (wide.empty()) throw Error(ErrorCode::invalid_argument, "there is no image to learn from");
  if (batch_size < 1) throw Error(ErrorCode::invalid_argument, "a batch needs at least one image");
  for (std::size_t i = 0; i < wide.size(); ++i)
    (wide[i] ? wide_ : tall_).push_back(static_cast<std::uint32_t>(i));
  epoch_length_ =
      grouping_ ? rounded_up(wide_.size(), batch_size) + rounded_up(tall_.size(), batch_size) : count_;
}

std::vector<std::uint32_t> Sampler::grouped_order(std::int64_t epoch) const {
  std::vector<std::uint32_t> sorted;  // batch after batch
  std::uint64_t draw = static_cast<std::uint64_t>(epoch) * 3;
  for (const auto* kind : {&wide_, &tall_}) {
    const auto order = shuffled(kind->size(), seed_, draw++);
    const auto length = static_cast<std::size_t>(rounded_up(kind->size(), batch_size_));
    for (std::size_t i = 0; i < length; ++i) sorted.push_back((*kind)[order[i % order.size()]]);
  }
  const auto size = static_cast<std::size_t>(batch_size_);
  std::vector<std::uint32_t> images;
  for (const std::uint32_t batch : shuffled(sorted.size() / size, seed_, draw)) {
    const auto begin = sorted.begin() + static_cast<std::ptrdiff_t>(batch * size);
    images.insert(images.end(), begin, begin + static_cast<std::ptrdiff_t>(size));
  }
  return images;
}

std::uint32_t Sampler::image_at(std::int64_t position) const {
  const std::int64_t epoch = position / epoch_length_;
  if (epoch != cached_epoch_) {
    order_ = grouping_ ? grouped_order(epoch)
                       : shuffled(static_cast<std::size_t>(count_), seed_, static_cast<std::uint64_t>(epoch));
    cached_epoch_ = epoch;
  }
  return order_[static_cast<std::size_t>(position % epoch_length_)];
}

std::vector<std::size_t> Sampler::batch(std::int64_t number) const {
  const std::lock_guard lock(mutex_);
  std::vector<std::size_t> images;
  for (std::int64_t i = 0; i < batch_size_; ++i) images.push_back(image_at(number * batch_size_ + i));
  return images;
}

double Sampler::epoch(std::int64_t number) const {
  return static_cast<double>(number * batch_size_) / static_cast<double>(epoch_length_);
}

}  // namespace frcnn
