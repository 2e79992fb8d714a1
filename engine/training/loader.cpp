#include "training/loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <system_error>

#include "frcnn/error.h"
#include "training/augment.h"

namespace frcnn {
namespace {

Image read_entry(const TrainEntry& entry) {
  Image image = read_image(entry.path);
  if (image.width != entry.width || image.height != entry.height)
    throw Error(ErrorCode::bad_file,
                fmt::format("{}: {}x{} pixels, but {} states {}x{} (see `frcnn data check`)", entry.path,
                            image.width, image.height, entry.annotation, entry.width, entry.height));
  return image;
}

}  // namespace

Loader::Loader(const TrainDataset& dataset, const Sampler& sampler, const RunConfig& config,
               std::int64_t first, const LoaderOptions& options)
    : dataset_(dataset), sampler_(sampler), config_(config), options_(options), next_to_start_(first) {
  const int count = std::max(1, options.threads);
  try {
    for (int i = 0; i < count; ++i) threads_.emplace_back([this] { work(); });
  } catch (const std::system_error& error) {
    stop();
    throw Error(ErrorCode::out_of_memory,
                fmt::format("thread {} of {} that read images cannot be started: {}", threads_.size() + 1,
                            count, error.what()));
  }
}

Loader::~Loader() { stop(); }

void Loader::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  room_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

LoadedBatch Loader::load(const TrainDataset& dataset, const Sampler& sampler, const RunConfig& config,
                         std::int64_t number) {
  LoadedBatch batch;
  batch.number = number;
  const std::vector<std::size_t> entries = sampler.batch(number);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const TrainEntry& entry = dataset.entries[entries[i]];
    LoadedImage loaded;
    loaded.entry = entries[i];
    try {
      loaded.pixels = read_entry(entry);
    } catch (const Error& error) {
      if (config.data.broken_images == BrokenImages::fatal) throw broken_image(error);
      batch.skipped.emplace_back(error.what());
      continue;
    }
    const Augmentation what =
        draw_augmentation(config.train.augment, config.train.seed, number, static_cast<std::int64_t>(i),
                          static_cast<std::int64_t>(entries.size()));
    augment(loaded.pixels, what);
    loaded.image.name = entry.name;
    loaded.image.width = loaded.pixels.width;
    loaded.image.height = loaded.pixels.height;
    for (const auto& object : entry.objects)
      loaded.image.objects.push_back({augment(object.box, what, entry.width, entry.height), object.class_id});
    batch.images.push_back(std::move(loaded));
  }
  // Moving a vector keeps its elements where they are, so the views stay valid.
  for (LoadedImage& loaded : batch.images) loaded.image.bgr = loaded.pixels.bgr;
  return batch;
}

// Ahead of the consumer by a few batches per thread, and by no more bytes than allowed; the batch that the
// consumer waits for may always start.
bool Loader::may_start() const {
  if (queue_.empty()) return true;
  return queue_.size() < static_cast<std::size_t>(options_.threads) * 2 + 2 &&
         queued_bytes_ < options_.max_queued_bytes;
}

void Loader::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    room_.wait(lock, [this] { return stop_ || may_start(); });
    if (stop_) return;
    std::shared_ptr<Slot> slot;
    try {
      slot = std::make_shared<Slot>();
      queue_.push_back(slot);
    } catch (...) {
      failure_ = std::current_exception();
      ready_.notify_all();
      return;
    }
    const std::int64_t number = next_to_start_++;
    lock.unlock();
    LoadedBatch batch;
    std::exception_ptr error;
    std::size_t bytes = 0;
    try {
      batch = load(dataset_, sampler_, config_, number);
      for (const LoadedImage& image : batch.images) bytes += image.pixels.bgr.size();
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    slot->batch = std::move(batch);
    slot->error = error;
    slot->bytes = bytes;
    slot->ready = true;
    queued_bytes_ += bytes;
    ready_.notify_all();
  }
}

LoadedBatch Loader::next() {
  std::shared_ptr<Slot> slot;
  {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [this] { return failure_ || (!queue_.empty() && queue_.front()->ready); });
    if (failure_) std::rethrow_exception(failure_);
    slot = queue_.front();
    queue_.pop_front();
    queued_bytes_ -= slot->bytes;
  }
  room_.notify_all();
  if (slot->error) std::rethrow_exception(slot->error);
  return std::move(slot->batch);
}

std::array<double, 3> measure_input_offset(const TrainDataset& dataset,
                                           const std::array<double, 3>& pixel_mean, BrokenImages broken) {
  std::array<double, 3> sum{};
  double images = 0;
  for (const TrainEntry& entry : dataset.entries) {
    try {
      const Image image = read_entry(entry);
      std::array<std::uint64_t, 3> levels{};
      for (std::size_t i = 0; i < image.bgr.size(); ++i) levels[i % 3] += image.bgr[i];
      for (std::size_t c = 0; c < 3; ++c)
        sum[c] += static_cast<double>(levels[c]) * 3 / static_cast<double>(image.bgr.size());
      ++images;
    } catch (const Error& error) {
      if (broken == BrokenImages::fatal) throw broken_image(error);
    }
  }
  std::array<double, 3> offset{};
  for (std::size_t c = 0; c < 3; ++c)
    offset[c] = images > 0 ? std::nearbyint(sum[c] / images - pixel_mean[c]) : 0;
  return offset;
}

}  // namespace frcnn
