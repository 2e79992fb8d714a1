// Images decoded, augmented and queued by background threads, in order.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "model_io/image_file.h"
#include "training/sampler.h"
#include "training/train_dataset.h"

namespace frcnn {

struct LoadedImage {
  std::size_t entry = 0;  // of the dataset
  Image pixels;
  TrainImage image;  // looks at `pixels`; valid while this object or what it was moved to lives
};

struct LoadedBatch {
  std::int64_t number = 0;
  std::vector<LoadedImage> images;
  std::vector<std::string> skipped;  // messages of images that could not be read
};

struct LoaderOptions {
  int threads = 2;
  std::size_t max_queued_bytes = std::size_t{256} << 20;  // of decoded images; one batch is always allowed
};

// Batches first, first + 1, ... of a sampler. What a batch holds depends on its number, the seed and the
// files alone, never on threads. For one consumer.
class Loader {
 public:
  // Dataset and sampler must outlive the loader. Throws Error(out_of_memory) when a thread cannot be started.
  Loader(const TrainDataset& dataset, const Sampler& sampler, const RunConfig& config, std::int64_t first,
         const LoaderOptions& options);
  ~Loader();  // stops the threads and waits for them
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  // Waits for the next batch. Throws the error that met a thread when its turn comes: Error(io) or
  // Error(bad_file) naming the image that is broken (data.broken_images fatal).
  LoadedBatch next();

  // The same, made now and here.
  static LoadedBatch load(const TrainDataset& dataset, const Sampler& sampler, const RunConfig& config,
                          std::int64_t number);

 private:
  struct Slot {
    bool ready = false;
    LoadedBatch batch;
    std::exception_ptr error;
    std::size_t bytes = 0;
  };
  void work();
  void stop();  // the threads
  bool may_start() const;

  const TrainDataset& dataset_;
  const Sampler& sampler_;
  const RunConfig config_;
  const LoaderOptions options_;
  std::mutex mutex_;
  std::condition_variable room_, ready_;
  std::deque<std::shared_ptr<Slot>> queue_;  // begun, in order; the front is the next to be consumed
  std::int64_t next_to_start_;
  std::size_t queued_bytes_ = 0;
  bool stop_ = false;
  std::exception_ptr failure_;  // of a thread that could not even begin a batch
  std::vector<std::thread> threads_;
};

// The mean of the images' mean colours less `pixel_mean`, B, G, R, rounded to whole levels (UnitsConfig).
// Throws as load().
std::array<double, 3> measure_input_offset(const TrainDataset& dataset,
                                           const std::array<double, 3>& pixel_mean, BrokenImages broken);

}  // namespace frcnn
