#include "training/trainer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <utility>

#include "frcnn/error.h"
#include "training/schedule.h"

namespace frcnn {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::vector<bool> wide_images(const TrainDataset& dataset) {
  std::vector<bool> wide;
  for (const TrainEntry& entry : dataset.entries) wide.push_back(entry.width >= entry.height);
  return wide;
}

TrainLosses& operator+=(TrainLosses& sum, const TrainLosses& one) {
  sum.rpn_cls += one.rpn_cls;
  sum.rpn_bbox += one.rpn_bbox;
  sum.cls += one.cls;
  sum.bbox += one.bbox;
  return sum;
}

TrainLosses operator/(TrainLosses sum, double count) {
  return {sum.rpn_cls / count, sum.rpn_bbox / count, sum.cls / count, sum.bbox / count};
}

}  // namespace

Trainer::Trainer(Learner& learner, const TrainDataset& dataset, const RunConfig& config,
                 const TrainerOptions& options, TrainerHooks hooks, const Checkpoint* resume_from)
    : learner_(learner),
      dataset_(dataset),
      config_(config),
      options_(options),
      hooks_(std::move(hooks)),
      sampler_(wide_images(dataset), config.train.solver.iter_size, config.train.augment.aspect_grouping,
               config.train.seed),
      position_(resume_from ? resume_from->position : RunPosition{}),
      log_(options.run_directory, position_.step) {
  if (resume_from) {
    learner_.restore(resume_from->state);
    saved_step_ = position_.step;
    last_checkpoint_ = checkpoint_path(options_.run_directory, position_.step);
  }
  if (resume_from) best_ = resume_from->best;
  if (hooks_.evaluate && (best_.set != options_.evaluation_set || best_.metric != options_.metric))
    best_ = {options_.evaluation_set, options_.metric, -1, -1, {}};
  // An evaluation comes after the checkpoint of its update. Where the log has it, best.safetensors was
  // written before; one that a stop cut short is made up for at once.
  for (const EvaluationRecord& record : log_.evaluations())
    if (record.step == position_.step && record.set == best_.set && record.metric == best_.metric)
      is_best(record);
  if (resume_from) return;
  for (const char* stale : {"best.safetensors", "last.safetensors"})  // another run's
    std::filesystem::remove(std::filesystem::path(options_.run_directory) / stale);
}

Trainer::End Trainer::run() {
  try {
    return make_updates();
  } catch (const Error& error) {
    if (error.code() == ErrorCode::numeric || position_.step == 0) throw;
    try {
      save();
    } catch (const Error&) {  // what stopped the run is the error to tell
    }
    throw Error(error.code(), fmt::format("{}; {}", error.what(), kept()));
  }
}

Trainer::End Trainer::make_updates() {
  const std::int64_t iterations = config_.train.iterations;
  const auto due = [](std::int64_t step, std::int64_t every) {
    return step > 0 && every > 0 && step % every == 0;
  };
  {
    Loader loader(dataset_, sampler_, config_, position_.batch, options_.loader);
    if (due(position_.step, options_.evaluate_every)) evaluate_if_due(false);
    while (position_.step < iterations) {
      if (stop_wanted()) {
        save();
        return End::stopped;
      }
      if (!step(loader)) continue;
      if (position_.step == iterations) break;
      if (due(position_.step, options_.checkpoint_every)) save();
      if (due(position_.step, options_.evaluate_every)) evaluate_if_due(false);
    }
  }
  save();
  evaluate_if_due(true);
  log_.plot();
  return stop_wanted() && hooks_.evaluate && best_.evaluated_step != position_.step ? End::stopped
                                                                                    : End::finished;
}

// One batch. False where none of its images could be read: then no update is made.
bool Trainer::step(Loader& loader) {
  const auto start = Clock::now();
  UpdateRecord record;
  LoadedBatch batch = loader.next();
  skipped_.insert(skipped_.end(), batch.skipped.begin(), batch.skipped.end());
  if (batch.images.empty()) {
    position_.batch = batch.number + 1;
    if (skipped_.size() >= 2 * dataset_.entries.size() + 2)
      throw Error(ErrorCode::io,
                  fmt::format("no image can be read any more; the last one: {}", skipped_.back()));
    return false;
  }
  record.skipped = std::exchange(skipped_, {});
  try {
    for (std::size_t i = 0; i < batch.images.size(); ++i) {
      const TrainImage& image = batch.images[i].image;
      const TrainLosses losses = learner_.accumulate(image, {position_.step, static_cast<std::int64_t>(i)});
      if (!std::isfinite(losses.total()))
        throw Error(ErrorCode::numeric, fmt::format("{}: the loss is {}", image.name, losses.total()));
      record.losses += losses;
      record.images.push_back(image.name);
    }
  } catch (const Error& error) {
    if (error.code() != ErrorCode::numeric) throw;
    throw numeric(error.what(), position_.step + 1);
  }
  record.learning_rate = learning_rate(config_.train.solver, config_.train.iterations, position_.step);
  try {
    const UpdateResult result =
        learner_.update(record.learning_rate, average_decay(config_.train.solver, position_.step));
    record.gradient_norm = result.gradient_norm;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::numeric) throw;
    throw numeric(fmt::format("{} (images of this update: {})", error.what(), fmt::join(record.images, ", ")),
                  position_.step + 1);
  }
  record.losses = record.losses / static_cast<double>(batch.images.size());
  position_.batch = batch.number + 1;
  record.step = ++position_.step;
  record.epoch = sampler_.epoch(position_.batch);
  record.seconds = seconds_since(start);
  position_.seconds += record.seconds;
  last_images_ = record.images;
  log_.add(record);
  if (hooks_.updated) hooks_.updated(record);
  return true;
}

std::string Trainer::kept() const {
  return last_checkpoint_.empty() ? "no checkpoint was written yet"
                                  : "the last checkpoint is " + last_checkpoint_;
}

Error Trainer::numeric(const std::string& what, std::int64_t update) const {
  return Error(ErrorCode::numeric, fmt::format("update {}: {}; {}", update, what, kept()));
}

// An update by a finite gradient can still leave the numbers there are: such a state is worth nothing.
void Trainer::check_finite(const HostTensors& state) const {
  for (const auto& [name, tensor] : state)
    for (const float x : tensor.data)
      if (!std::isfinite(x))
        throw numeric(
            fmt::format("{} is {} (images of this update: {})", name, x, fmt::join(last_images_, ", ")),
            position_.step);
}

bool Trainer::is_best(const EvaluationRecord& record) {
  best_.evaluated_step = record.step;
  if (!record.map || (best_.map && *record.map <= *best_.map)) return false;
  best_.map = record.map;
  best_.step = record.step;
  return true;
}

void Trainer::evaluate_if_due(bool at_end) {
  if (!hooks_.evaluate || best_.evaluated_step == position_.step || (at_end && stop_wanted())) return;
  const auto start = Clock::now();
  const std::shared_ptr<const Model> model = learner_.deploy();
  const std::optional<VocScore> score = hooks_.evaluate(model);
  if (!score) return;  // asked to stop
  const EvaluationRecord record{position_.step,     best_.set,      best_.metric,        score->map,
                                score->map_rounded, score->classes, seconds_since(start)};
  const BestScore before = best_;
  const bool best = is_best(record);
  try {
    // The file before the log: a run that is killed in between evaluates again.
    if (best) write_deployed(options_.run_directory + "/best.safetensors", *model);
    log_.add(record);
  } catch (...) {
    best_ = before;
    throw;
  }
  if (hooks_.evaluated) hooks_.evaluated(record, best);
}

void Trainer::save() {
  if (saved_step_ == position_.step) return;
  const std::shared_ptr<const Model> model = learner_.deploy();
  const std::string path = checkpoint_path(options_.run_directory, position_.step);
  Checkpoint checkpoint;
  checkpoint.config = config_;
  checkpoint.model = model->config;
  checkpoint.classes = dataset_.classes;
  checkpoint.data_fingerprint = dataset_.fingerprint;
  checkpoint.device = options_.device;
  checkpoint.position = position_;
  checkpoint.best = best_;
  checkpoint.state = learner_.state();
  check_finite(checkpoint.state);
  log_.sync();
  // In this order: where the checkpoint is, last.safetensors is not older, whenever a run is killed.
  write_deployed(options_.run_directory + "/last.safetensors", *model);
  write_checkpoint(path, checkpoint, *model);
  saved_step_ = position_.step;
  last_checkpoint_ = path;
  remove_old_checkpoints();
  log_.plot();
}

void Trainer::remove_old_checkpoints() const {
  if (options_.keep_checkpoints <= 0) return;
  auto all = find_checkpoints(options_.run_directory);
  std::erase_if(all, [&](const auto& one) { return one.first >= position_.step; });
  const auto keep = static_cast<std::size_t>(options_.keep_checkpoints - 1);
  for (std::size_t i = 0; i + keep < all.size(); ++i) {
    std::error_code ignored;  // another program may hold or have removed it
    std::filesystem::remove(all[i].second, ignored);
  }
}

}  // namespace frcnn
