// The training loop around a learner that is not a network: what it saves, when, and how it goes on.
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <stdexcept>

#include "catch.h"
#include "io/scratch.h"
#include "io/small_models.h"
#include "model_io/model_file.h"
#include "training/trainer.h"
#include "voc_folder.h"

using namespace frcnn;
using voc_folder::VocFolder;

namespace {

// Its weight becomes a mixture of everything that a step may depend on: pixels, boxes, position, rate, decay.
class MixingLearner : public Learner {
 public:
  TrainLosses accumulate(const TrainImage& image, const StepPosition& position) override {
    if (position.step == fail_at) throw Error(ErrorCode::numeric, image.name + ": conv2 holds a NaN");
    double sum = 0;
    for (const std::uint8_t x : image.bgr) sum = std::fmod(sum * 3 + x, 1000);
    for (const auto& object : image.objects) sum += object.box[0] * 2 + object.box[3] + object.class_id;
    gradient += static_cast<float>(sum / 1000 + static_cast<double>(position.step + 7 * position.image));
    ++images;
    return {sum / 1000, position.step == infinite_at ? std::numeric_limits<double>::infinity() : 0.5, 0, 0};
  }
  UpdateResult update(double rate, double decay) override {
    const auto g = gradient / static_cast<float>(images);
    velocity = 0.9f * velocity + static_cast<float>(rate) * g;
    weight = std::fmod(weight - velocity, 10.0f);
    average += (weight - average) * static_cast<float>(1 - decay);
    gradient = 0;
    images = 0;
    return {std::abs(g)};
  }
  HostTensors state() const override { return {{"w", {Shape{3}, {weight, velocity, average}}}}; }
  void restore(const HostTensors& state) override {
    const auto& data = state.at("w").data;
    weight = data[0], velocity = data[1], average = data[2];
  }
  // A small model, whose first bias is the average.
  std::shared_ptr<const Model> deploy() const override {
    static const small_models::WeightSet tensors = small_models::weights();
    std::map<std::string, Weight> weights;
    for (const StoredTensor& t : tensors.tensors()) {
      auto data = std::make_shared<std::vector<float>>(t.bytes / 4);
      std::memcpy(data->data(), t.data, t.bytes);
      if (t.name == "conv1.bias") (*data)[0] = average;
      Shape shape;
      shape.rank = static_cast<int>(t.shape.size());
      std::copy(t.shape.begin(), t.shape.end(), shape.dim.begin());
      weights.emplace(t.name, Weight{{data->data(), shape, DType::f32}, data, {}});
    }
    return std::make_shared<const Model>(small_models::config(), std::move(weights), "mixing");
  }
  std::int64_t fail_at = -1, infinite_at = -1;
  float weight = 1, velocity = 0, average = 1, gradient = 0;
  int images = 0;
};

struct Bench {
  VocFolder folder;
  scratch::Folder out;
  RunConfig config;
  TrainDataset dataset;
  TrainerOptions options;
  TrainerHooks hooks;
  std::vector<std::int64_t> evaluated;

  explicit Bench(std::int64_t iterations = 23, std::int64_t batch = 2) {
    voc_folder::fill(folder, 7);
    config.train.iterations = iterations;
    config.train.solver.iter_size = batch;
    config.train.solver.average_decay = 0.9;
    config.train.augment = {true, true, true, 0.1, 8, true};
    dataset = make_train_dataset(read_voc_sets(folder.path(), "train"), {}, config.data);
    options.run_directory = out.path();
    options.checkpoint_every = 5;
    options.evaluate_every = 0;
    options.loader.threads = 2;
  }
  // Runs until `stop_after` updates are made (or to the end), from the newest checkpoint if there is one.
  Trainer::End run(MixingLearner& learner, std::int64_t stop_after = -1) {
    const auto checkpoints = find_checkpoints(out.path());
    Checkpoint checkpoint;
    if (!checkpoints.empty()) checkpoint = read_checkpoint(checkpoints.back().second);
    std::int64_t step = checkpoint.position.step;
    TrainerHooks mine = hooks;
    mine.updated = [&](const UpdateRecord& record) {
      step = record.step;
      if (hooks.updated) hooks.updated(record);
    };
    if (stop_after >= 0) mine.stop_wanted = [&] { return step >= stop_after; };
    Trainer trainer(learner, dataset, config, options, mine, checkpoints.empty() ? nullptr : &checkpoint);
    return trainer.run();
  }
  // mAPs that rise until update 10 and fall after.
  void score() {
    options.evaluate_every = 5;
    hooks.evaluate = [this](const std::shared_ptr<const Model>&) {
      VocScore score;
      const auto n = static_cast<double>(evaluated.size());
      score.map = 0.5 - std::abs(n - 1) * 0.1;
      return std::optional(score);
    };
    hooks.evaluated = [this](const EvaluationRecord& record, bool) { evaluated.push_back(record.step); };
  }
};

}  // namespace

TEST_CASE("trainer: stopped anywhere and resumed, it ends with the same bits and the same log") {
  Bench whole;
  MixingLearner reference;
  CHECK(whole.run(reference) == Trainer::End::finished);
  const std::string last = scratch::read(whole.out / "last.safetensors");
  for (const std::vector<std::int64_t>& stops : {std::vector<std::int64_t>{1}, {5}, {7, 8, 22}, {0, 23}}) {
    Bench parts;
    for (const std::int64_t stop : stops) {
      MixingLearner learner;
      CHECK(parts.run(learner, stop) == (stop < 23 ? Trainer::End::stopped : Trainer::End::finished));
    }
    MixingLearner learner;
    CHECK(parts.run(learner) == Trainer::End::finished);
    CHECK(learner.weight == reference.weight);
    CHECK(learner.velocity == reference.velocity);
    CHECK(learner.average == reference.average);
    CHECK(scratch::read(parts.out / "last.safetensors") == last);
    const auto losses = [](const std::string& path) {  // all columns but the seconds
      std::string text;
      std::ifstream in(path);
      for (std::string line; std::getline(in, line);) text += line.substr(0, line.rfind(',')) + "\n";
      return text;
    };
    CHECK(losses(parts.out / "loss.csv") == losses(whole.out / "loss.csv"));
  }
}

TEST_CASE("trainer: a run that was killed goes on from its last checkpoint") {
  Bench whole, killed;
  MixingLearner reference;
  whole.run(reference);
  {
    MixingLearner dying;
    killed.hooks.updated = [](const UpdateRecord& record) {
      if (record.step == 13) throw std::runtime_error("as if killed");
    };
    CHECK_THROWS_AS(killed.run(dying), std::runtime_error);
    killed.hooks.updated = nullptr;
  }
  CHECK(find_checkpoints(killed.out.path()).back().first == 10);
  MixingLearner learner;
  killed.run(learner);
  CHECK(learner.weight == reference.weight);
  CHECK(scratch::read(killed.out / "last.safetensors") == scratch::read(whole.out / "last.safetensors"));
}

TEST_CASE("trainer: checkpoints, their number, and the best model") {
  Bench bench;
  bench.options.keep_checkpoints = 2;
  bench.score();
  MixingLearner learner;
  bench.run(learner);
  std::vector<std::int64_t> kept;
  for (const auto& [step, path] : find_checkpoints(bench.out.path())) kept.push_back(step);
  CHECK(kept == std::vector<std::int64_t>{20, 23});
  CHECK(bench.evaluated == std::vector<std::int64_t>{5, 10, 15, 20, 23});
  // The second evaluation was the best.
  const auto best = load_model(bench.out / "best.safetensors"),
             last = load_model(bench.out / "last.safetensors");
  CHECK(std::memcmp(best->weights.at("conv1.bias").view.data, last->weights.at("conv1.bias").view.data, 4) !=
        0);
  CHECK(std::filesystem::exists(bench.out / "map.svg"));
  CHECK(std::filesystem::exists(bench.out / "loss.svg"));

  Bench all(11, 1);
  all.options.keep_checkpoints = 0;
  MixingLearner other;
  all.run(other);
  CHECK(find_checkpoints(all.out.path()).size() == 3);
}

TEST_CASE("trainer: an evaluation that was cut short is made up for, one that was made is not repeated") {
  Bench bench;
  bench.score();
  const auto score = bench.hooks.evaluate;
  bool asked = false;
  bench.hooks.evaluate = [&](const std::shared_ptr<const Model>&) -> std::optional<VocScore> {
    asked = true;
    return std::nullopt;
  };
  bench.hooks.stop_wanted = [&] { return asked; };
  MixingLearner first, second, third;
  {
    Trainer trainer(first, bench.dataset, bench.config, bench.options, bench.hooks);
    CHECK(trainer.run() == Trainer::End::stopped);
    CHECK(trainer.position().step == 5);
  }
  bench.hooks.evaluate = score;
  bench.hooks.stop_wanted = nullptr;
  bench.run(second, 7);
  CHECK(bench.evaluated == std::vector<std::int64_t>{5});
  bench.run(third);
  CHECK(bench.evaluated == std::vector<std::int64_t>{5, 10, 15, 20, 23});
}

TEST_CASE("trainer: the best score is the checkpoint's, whatever became of the log") {
  Bench bench;
  bench.score();
  bench.options.evaluation_set = "val";
  bench.options.metric = "voc07";
  MixingLearner first, second, third;
  bench.run(first, 17);  // the best was update 10's
  const std::string best = scratch::read(bench.out / "best.safetensors");
  const Checkpoint stopped = read_checkpoint(find_checkpoints(bench.out.path()).back().second);
  CHECK(stopped.best.step == 10);
  CHECK(stopped.best.evaluated_step == 15);
  CHECK(stopped.best.map == 0.5);
  std::filesystem::remove(bench.out / "log.jsonl");
  bench.run(second, 21);
  CHECK(bench.evaluated == std::vector<std::int64_t>{5, 10, 15, 20});
  CHECK(scratch::read(bench.out / "best.safetensors") == best);
  // By another metric nothing was scored yet: the next score is the best there is.
  bench.options.metric = "voc";
  bench.run(third);
  CHECK(bench.evaluated == std::vector<std::int64_t>{5, 10, 15, 20, 23});
  CHECK(scratch::read(bench.out / "best.safetensors") == scratch::read(bench.out / "last.safetensors"));
}

TEST_CASE("trainer: a new run removes another one's models") {
  Bench bench(3);
  scratch::write(bench.out / "best.safetensors", "old");
  scratch::write(bench.out / "last.safetensors", "old");
  MixingLearner learner;
  bench.hooks.updated = [](const UpdateRecord&) { throw std::runtime_error("as if killed"); };
  CHECK_THROWS_AS(bench.run(learner), std::runtime_error);
  CHECK_FALSE(std::filesystem::exists(bench.out / "best.safetensors"));
  CHECK_FALSE(std::filesystem::exists(bench.out / "last.safetensors"));
}

TEST_CASE("trainer: an error that is not the numbers' saves the updates made, and goes on from them") {
  Bench whole;
  MixingLearner reference;
  whole.run(reference);
  const auto goes_on = [&](Bench& bench) {
    bench.hooks = {};
    MixingLearner learner;
    CHECK(bench.run(learner) == Trainer::End::finished);
    CHECK(learner.weight == reference.weight);
  };
  {
    Bench bench;
    bench.hooks.updated = [](const UpdateRecord& record) {
      if (record.step == 13) throw Error(ErrorCode::io, "a full terminal");
    };
    MixingLearner learner;
    scratch::check_error([&] { bench.run(learner); }, ErrorCode::io,
                         {"a full terminal; the last checkpoint is ", "checkpoint-13.safetensors"});
    goes_on(bench);
  }
  {
    Bench bench;
    bench.options.evaluate_every = 7;
    bench.hooks.evaluate = [](const std::shared_ptr<const Model>&) -> std::optional<VocScore> {
      throw Error(ErrorCode::bad_file, "val.png is broken");
    };
    MixingLearner learner;
    scratch::check_error([&] { bench.run(learner); }, ErrorCode::bad_file,
                         {"val.png is broken", "checkpoint-7.safetensors"});
    goes_on(bench);
  }
  {  // a plot that cannot be written does not stop a checkpoint
    Bench bench;
    std::filesystem::create_directory(bench.out / "loss.svg");
    MixingLearner learner;
    scratch::check_error([&] { bench.run(learner); }, ErrorCode::io,
                         {"loss.svg", "checkpoint-5.safetensors"});
    CHECK(read_checkpoint(bench.out / "checkpoint-5.safetensors").position.step == 5);
    std::filesystem::remove(bench.out / "loss.svg");
    goes_on(bench);
  }
}

TEST_CASE("trainer: a run that died on a broken image goes on without it") {
  Bench bench(23, 1);
  MixingLearner dying, learner;
  bench.hooks.updated = [&](const UpdateRecord& record) {
    if (record.step == 6) bench.folder.write("JPEGImages/p2.png", "broken");
  };
  bench.options.loader = {1, 1};
  scratch::check_error([&] { bench.run(dying); }, ErrorCode::bad_file,
                       {"p2.png", "--set data.broken_images=skip", "the last checkpoint is "});
  const auto [step, path] = find_checkpoints(bench.out.path()).back();
  CHECK(step >= 6);
  bench.hooks = {};
  bench.config.data.broken_images = BrokenImages::skip;
  const TrainDataset now =
      make_train_dataset(read_voc_sets(bench.folder.path(), "train"), {}, bench.config.data);
  const Checkpoint checkpoint = read_checkpoint(path);
  CHECK_NOTHROW(check_same_run(checkpoint, path, bench.config, checkpoint.model, now.fingerprint));
  CHECK(bench.run(learner) == Trainer::End::finished);
}

TEST_CASE("trainer: NaN and infinity stop it, named, with the last good checkpoint kept") {
  Bench bench;
  MixingLearner learner;
  learner.fail_at = 12;
  scratch::check_error([&] { bench.run(learner); }, ErrorCode::numeric,
                       {"update 13: p", "conv2 holds a NaN", "checkpoint-10.safetensors"});
  CHECK(find_checkpoints(bench.out.path()).back().first == 10);
  MixingLearner again;
  CHECK(bench.run(again) == Trainer::End::finished);

  Bench other;
  MixingLearner infinite;
  infinite.infinite_at = 2;
  scratch::check_error([&] { other.run(infinite); }, ErrorCode::numeric,
                       {"update 3: p", "the loss is inf", "no checkpoint was written yet"});
}

TEST_CASE("trainer: weights that are no numbers are not saved") {
  Bench bench;
  MixingLearner learner;
  bench.hooks.updated = [&](const UpdateRecord& record) {
    if (record.step == 9) learner.velocity = std::numeric_limits<float>::infinity();
  };
  scratch::check_error([&] { bench.run(learner); }, ErrorCode::numeric,
                       {"update 10: w is ", "images of this update: p", "checkpoint-5.safetensors"});
  CHECK(find_checkpoints(bench.out.path()).back().first == 5);
  bench.hooks.updated = nullptr;
  CHECK(bench.run(learner) == Trainer::End::finished);
}

TEST_CASE("trainer: broken images are fatal, or skipped and logged, also when all are broken") {
  Bench bench(23, 1);
  bench.folder.write("JPEGImages/p2.png", "broken");
  MixingLearner learner;
  scratch::check_error([&] { bench.run(learner); }, ErrorCode::bad_file, {"p2.png"});

  Bench skipping(23, 1);
  skipping.folder.write("JPEGImages/p2.png", "broken");
  skipping.config.data.broken_images = BrokenImages::skip;
  MixingLearner whole;
  CHECK(skipping.run(whole) == Trainer::End::finished);
  const Checkpoint end = read_checkpoint(find_checkpoints(skipping.out.path()).back().second);
  CHECK(end.position.step == 23);
  CHECK(end.position.batch > 23);
  Bench again(23, 1);
  again.folder.write("JPEGImages/p2.png", "broken");
  again.config.data.broken_images = BrokenImages::skip;
  MixingLearner first, second;
  again.run(first, 11);
  again.run(second);
  CHECK(second.weight == whole.weight);

  for (int i = 0; i < 7; ++i) skipping.folder.write("JPEGImages/p" + std::to_string(i) + ".png", "broken");
  const scratch::Folder fresh;
  skipping.options.run_directory = fresh.path();
  MixingLearner none;
  Trainer trainer(none, skipping.dataset, skipping.config, skipping.options, {});
  scratch::check_error([&] { trainer.run(); }, ErrorCode::io, {"no image can be read any more"});
}
