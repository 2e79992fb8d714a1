#include "runtime/session.h"

#include <algorithm>

namespace frcnn {

Session::Session(std::shared_ptr<const Weights> weights, std::shared_ptr<Device> device,
                 SessionOptions options)
    : weights_(std::move(weights)),
      device_(std::move(device)),
      options_(std::move(options)),
      arena_(weights_->allocate(*device_, options_.arena_bytes)),
      staging_(std::make_shared<Staging>(*device_)) {
  options_.cached_plans = std::max<std::size_t>(options_.cached_plans, 1);
}

Executable& Session::executable(const PlanKey& key, const std::function<Graph()>& build) {
  const auto found =
      std::find_if(cache_.begin(), cache_.end(), [&](const auto& entry) { return entry.first == key; });
  if (found != cache_.end()) {
    cache_.splice(cache_.begin(), cache_, found);
    return *cache_.front().second;
  }
  auto made = std::make_unique<Executable>(
      build(), std::span<const std::string>{}, *weights_, *device_,
      ExecutableOptions{ProgramMemory::arena, arena_, options_.arena_bytes, staging_, options_.states});
  cache_.emplace_front(key, std::move(made));
  if (cache_.size() > options_.cached_plans) cache_.pop_back();
  return *cache_.front().second;
}

}  // namespace frcnn
