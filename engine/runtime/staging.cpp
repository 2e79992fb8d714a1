#include "runtime/staging.h"

#include <algorithm>

namespace frcnn {

// At least twice as large as the one before: so sizes that come in rising order take few blocks, and all
// blocks together less than twice the newest.
std::shared_ptr<std::byte> Staging::block(std::size_t bytes) {
  const std::size_t largest = blocks_.empty() ? 0 : blocks_.back().bytes;
  if (newest_ && bytes <= largest) return newest_;
  bytes = std::max(bytes, 2 * largest);
  const std::shared_ptr<void> memory = device_.allocate_host(bytes);
  std::erase_if(blocks_, [](const Block& block) { return block.memory.expired(); });
  newest_ = std::shared_ptr<std::byte>(memory, static_cast<std::byte*>(memory.get()));
  blocks_.push_back({newest_, bytes});
  return newest_;
}

std::size_t Staging::bytes() const {
  std::size_t sum = 0;
  for (const Block& block : blocks_) sum += block.memory.expired() ? 0 : block.bytes;
  return sum;
}

}  // namespace frcnn
