#include "runtime/session.h"

#include <algorithm>

namespace frcnn {

Session::Session(std::shared_ptr<const Weights> weights, std::shared_ptr<Device> device,
                 SessionOptions options)
    : weights_(std::move(weights)),
      device_(std::move(device)),
      options_(std::move(options)),
      arena_(weights_->allocate(*device_, options_.arena_bytes)),
      staging_(*device_) {
  options_.cached_plans = std::max<std::size_t>(options_.cached_plans, 1);
  allocations_at_plan_ = device_->counts().allocations;
}

Executable& Session::executable(const PlanKey& key, const std::function<Graph()>& build) {
  const auto found =
      std::find_if(cache_.begin(), cache_.end(), [&](const auto& entry) { return entry.first == key; });
  if (found != cache_.end()) {
    cache_.splice(cache_.begin(), cache_, found);
    return *cache_.front().second;
  }
  ExecutableOptions options;
  options.arena = arena_;
  options.arena_bytes = options_.arena_bytes;
  options.staging = &staging_;
  options.states = options_.states;
  options.record = true;
  options.counts = &runs_;
  auto made =
      std::make_unique<Executable>(build(), std::span<const std::string>{}, *weights_, *device_, options);
  cache_.emplace_front(key, std::move(made));
  if (cache_.size() > options_.cached_plans) {
    cache_.pop_back();
    ++evictions_;
  }
  allocations_at_plan_ = device_->counts().allocations;
  return *cache_.front().second;
}

SessionStats Session::stats() const {
  SessionStats stats;
  stats.plans = cache_.size();
  stats.graphs = static_cast<std::size_t>(std::count_if(
      cache_.begin(), cache_.end(), [](const auto& entry) { return entry.second->recorded(); }));
  stats.runs = runs_;
  stats.evictions = evictions_;
  stats.arena_bytes = options_.arena_bytes;
  stats.staging_bytes = staging_.bytes();
  stats.packed_weight_bytes = weights_->packed_bytes();
  const DeviceCounts counts = device_->counts();
  stats.allocations_since_plan = counts.allocations - allocations_at_plan_;
  stats.synchronizations = counts.synchronizations;
  return stats;
}

}  // namespace frcnn
