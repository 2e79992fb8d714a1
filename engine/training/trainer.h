// The training loop: batches in, updates, checkpoints and scores out.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "frcnn/error.h"
#include "training/checkpoint.h"
#include "training/learner.h"
#include "training/loader.h"
#include "training/run_log.h"
#include "training/sampler.h"
#include "training/train_dataset.h"

namespace frcnn {

struct TrainerOptions {
  std::string run_directory;             // exists
  std::int64_t checkpoint_every = 1000;  // updates; 0: only at the end
  std::int64_t keep_checkpoints = 3;     // older ones are removed; 0: none is
  std::int64_t evaluate_every = 1000;    // updates; 0: only at the end
  std::string evaluation_set, metric;    // what hooks.evaluate scores: of another one nothing is compared
  RunDevice device;                      // recorded in checkpoints
  LoaderOptions loader;
};

// Called from run()'s thread. What they throw ends the run.
struct TrainerHooks {
  std::function<void(const UpdateRecord&)> updated;
  // Scores the current model; nothing where it was asked to stop. Empty: there is no validation set.
  std::function<std::optional<VocScore>(const std::shared_ptr<const Model>&)> evaluate;
  std::function<void(const EvaluationRecord&, bool best)> evaluated;
  std::function<bool()> stop_wanted;  // polled after each update
};

// Writes into the run's directory checkpoint-<step>.safetensors, last.safetensors with each of them,
// best.safetensors when an evaluation is the best so far, and RunLog's files. Resumed, it ends with the same
// weights as if it had never stopped, bit for bit, on the same device with the same number of threads.
class Trainer {
 public:
  // Everything must outlive the trainer. `resume_from` is null for a new run; otherwise check_same_run has
  // passed and the learner's state is replaced by the checkpoint's.
  Trainer(Learner& learner, const TrainDataset& dataset, const RunConfig& config,
          const TrainerOptions& options, TrainerHooks hooks, const Checkpoint* resume_from = nullptr);

  enum class End { finished, stopped };
  // Until the configured number of updates is made or a stop is wanted; both save. Throws Error(numeric)
  // naming update, image and tensor; then the files are as the last checkpoint left them. Every other Error
  // (an image that cannot be read, a file that cannot be written) comes after an attempt to save the updates
  // made.
  End run();

  const RunPosition& position() const { return position_; }
  std::string last_checkpoint() const { return last_checkpoint_; }  // its path; empty before the first
  std::optional<double> best_map() const { return best_.map; }

 private:
  End make_updates();
  bool step(Loader& loader);
  void evaluate_if_due(bool at_end);
  void save();
  void remove_old_checkpoints() const;
  bool is_best(const EvaluationRecord& record);  // remembers it
  std::string kept() const;                      // which checkpoint there is, for messages
  Error numeric(const std::string& what, std::int64_t update) const;
  void check_finite(const HostTensors& state) const;
  bool stop_wanted() const { return hooks_.stop_wanted && hooks_.stop_wanted(); }

  Learner& learner_;
  const TrainDataset& dataset_;
  const RunConfig config_;
  const TrainerOptions options_;
  const TrainerHooks hooks_;
  Sampler sampler_;
  RunPosition position_;
  RunLog log_;
  std::string last_checkpoint_;
  std::int64_t saved_step_ = -1;
  BestScore best_;
  std::vector<std::string> skipped_;      // messages since the last update
  std::vector<std::string> last_images_;  // of the last update
};

}  // namespace frcnn
