// Checkpoints: they detect, they give everything back bit for bit, and they refuse another run.
#include <cmath>
#include <cstring>

#include "catch.h"
#include "io/scratch.h"
#include "io/small_models.h"
#include "model_io/model_file.h"
#include "model_io/safetensors.h"
#include "training/checkpoint.h"
#include "training/presets.h"

using namespace frcnn;

namespace {

Checkpoint sample() {
  Checkpoint c;
  c.config = preset("bccd");
  c.config.train.iterations = 77;
  c.config.train.units.input_offset = {1, -2, 3};
  c.model = small_models::config();
  c.classes = c.model.classes;
  c.data_fingerprint = 0xfedcba9876543210u;
  c.device = {"cpu", "fp32", 2, "cudnn"};
  c.position = {12, 14, 3.25};
  c.best = {"val", "voc07", 10, 8, 0.375};
  c.state["conv1.weight"] = {Shape{2, 1, 1, 2}, {1.5f, -0.0f, 1e-40f, std::nextafter(1.0f, 2.0f)}};
  c.state["conv1.weight@velocity"] = {Shape{3}, {1, 2, 3}};
  return c;
}

}  // namespace

TEST_CASE("checkpoint: everything comes back, and the file is a model") {
  const scratch::Folder folder;
  save_model(folder / "m", small_models::config(), small_models::weights().tensors());
  const auto model = load_model(folder / "m");
  const Checkpoint written = sample();
  const std::string path = checkpoint_path(folder.path(), 12);
  write_checkpoint(path, written, *model);
  CHECK(path == folder / "checkpoint-12.safetensors");

  const Checkpoint read = read_checkpoint(path);
  CHECK(read.position.step == 12);
  CHECK(read.position.batch == 14);
  CHECK(read.position.seconds == 3.25);
  CHECK(read.best.set == "val");
  CHECK(read.best.metric == "voc07");
  CHECK(read.best.evaluated_step == 10);
  CHECK(read.best.step == 8);
  CHECK(read.best.map == 0.375);
  CHECK(read.data_fingerprint == written.data_fingerprint);
  CHECK(read.device.device == "cpu");
  CHECK(read.device.threads == 2);
  CHECK(read.device.algo == "cudnn");
  CHECK(read.classes == written.classes);
  CHECK(config_to_json(read.model) == config_to_json(written.model));
  REQUIRE(read.state.size() == 2);
  for (const auto& [name, tensor] : written.state) {
    CHECK(read.state.at(name).shape == tensor.shape);
    CHECK(std::memcmp(read.state.at(name).data.data(), tensor.data.data(), tensor.data.size() * 4) == 0);
  }
  CHECK_NOTHROW(check_same_run(read, path, written.config, written.model, written.data_fingerprint));

  const auto as_model = load_model(path);
  CHECK(as_model->weights.all().size() == model->weights.all().size());
  for (const auto& [name, weight] : model->weights.all())
    CHECK(std::memcmp(as_model->weights.at(name).view.data, weight.view.data, weight.view.bytes()) == 0);
  write_deployed(folder / "last.safetensors", *as_model);
  CHECK(load_model(folder / "last.safetensors")->weights.all().size() == model->weights.all().size());
  CHECK(find_checkpoints(folder.path()).size() == 1);
}

TEST_CASE("checkpoint: another configuration, data set or class list is named") {
  const scratch::Folder folder;
  const Checkpoint c = sample();
  const auto refused = [&](const RunConfig& config, const ModelConfig& model, std::uint64_t data,
                           std::initializer_list<std::string> parts) {
    scratch::check_error([&] { check_same_run(c, "run/checkpoint-12", config, model, data); },
                         ErrorCode::invalid_argument, parts);
  };
  RunConfig other = c.config;
  other.train.solver.base_lr = 0.5;
  other.train.seed = 9;
  refused(other, c.model, c.data_fingerprint,
          {"run/checkpoint-12", "seed: 9 against 3", "solver.base_lr: 0.5 against 0.006"});
  refused(c.config, c.model, 1, {"training images"});
  ModelConfig model = c.model;
  model.classes.emplace_back("new");
  refused(c.config, model, c.data_fingerprint, {"the classes: 3 of them against 2"});
  // What becomes of broken images may be chosen anew.
  other = c.config;
  other.data.broken_images = BrokenImages::skip;
  CHECK_NOTHROW(check_same_run(c, "c", other, c.model, c.data_fingerprint));
  // A cosine's rates depend on the number of updates, steps' do not.
  other = c.config;
  other.train.iterations = 100;
  refused(other, c.model, c.data_fingerprint, {"iterations: 100 against 77"});
  Checkpoint steps = c;
  steps.config.train.solver.policy = other.train.solver.policy = LrPolicy::step;
  CHECK_NOTHROW(check_same_run(steps, "c", other, c.model, c.data_fingerprint));
  other.train.iterations = 11;
  CHECK_THROWS_AS(check_same_run(steps, "c", other, c.model, c.data_fingerprint), Error);
}

TEST_CASE("checkpoint: files that are none, or damaged") {
  const scratch::Folder folder;
  save_model(folder / "m", small_models::config(), small_models::weights().tensors());
  scratch::check_error([&] { read_checkpoint(folder / "m"); }, ErrorCode::bad_model, {"not a checkpoint"});
  scratch::check_error([&] { read_checkpoint(folder / "none"); }, ErrorCode::io, {"none"});
  const auto weights = small_models::weights();
  const auto tensors = weights.tensors();
  for (
      const char* record :
      {"{}", "x",
       R"({"version":1,"step":5,"batch":5,"seconds":0,"data_fingerprint":"0","device":"cpu","precision":"fp32","threads":1,"config":{}})",
       R"({"version":1,"step":5,"batch":4,"seconds":0,"best":{"set":"","metric":"","evaluated_step":-1,"step":-1,"map":null},"data_fingerprint":"0","device":"cpu","precision":"fp32","threads":1,"config":{}})",
       R"({"version":1,"step":5,"batch":5,"seconds":0,"best":{"set":"","metric":"","evaluated_step":-1,"step":-1,"map":null},"data_fingerprint":"z","device":"cpu","precision":"fp32","threads":1,"config":{}})"}) {
    write_safetensors(
        folder / "c", tensors,
        {{model_metadata_key, config_to_json(small_models::config())}, {training_metadata_key, record}});
    scratch::check_error([&] { read_checkpoint(folder / "c"); }, ErrorCode::bad_file,
                         {folder / "c", "damaged"});
  }
  // Training tensors without the record are foreign.
  auto with = small_models::weights();
  with.add("training/x", {1});
  write_safetensors(folder / "c", with.tensors(),
                    {{model_metadata_key, config_to_json(small_models::config())}});
  scratch::check_error([&] { load_model(folder / "c"); }, ErrorCode::bad_model, {"training/x"});
}

TEST_CASE("find_checkpoints: by number, nothing else") {
  const scratch::Folder folder;
  for (const char* name :
       {"checkpoint-100.safetensors", "checkpoint-9.safetensors", "checkpoint-.safetensors",
        "checkpoint-9.safetensors.tmp", "last.safetensors", "checkpoint-x9.safetensors"})
    scratch::write(folder / name, "x");
  const auto found = find_checkpoints(folder.path());
  REQUIRE(found.size() == 2);
  CHECK(found[0].first == 9);
  CHECK(found[1].first == 100);
  CHECK(find_checkpoints(folder / "nowhere").empty());
}
