// What `frcnn train` refuses or warns of before it makes its first update.
#include <filesystem>

#include "train_run.h"

using namespace frcnn;
using namespace frcnn::train_run;

namespace {

void refused(const tool::Result& result, const Strings& parts) {
  INFO(result.err);
  CHECK(result.code == 1);
  for (const std::string& part : parts) {
    INFO(part);
    CHECK(has(result.err, part));
  }
}

tool::Result done(tool::Result result) {
  INFO(result.err);
  CHECK(result.code == 0);
  return result;
}

}  // namespace

TEST_CASE("train: a box without extent is a bad box, as the check says") {
  Bench bench;
  bench.data.add("dot", 90, 60, {{"cat", {10, 10, 40, 40}}, {"dog", {50, 20, 50, 20}}});
  bench.data.set("train", {"dot", "p0"});
  const std::string box = bench.data.annotation("dot") + ":17: box 50,20,50,20 of dog has no extent";
  CHECK(has(tool::run({"data", "check", bench.data.path()}).out, box));
  const auto dropped = done(bench.run("dropped", "6"));
  CHECK(has(dropped.err, "warning: " + box + " and is left out"));
  CHECK(has(dropped.out, "2 images, 3 objects"));
  refused(bench.run("refused", "6", {"--set", "data.bad_boxes=error"}), {box});
  const auto kept = done(bench.run("kept", "6", {"--set", "data.min_box_side=1"}));
  CHECK(has(kept.out, "2 images, 4 objects"));
  CHECK(kept.err.empty());
}

TEST_CASE("train: a model's rows are taken by the names of their classes") {
  Bench bench;
  tool::write_file(bench.work / "turned.txt", "dog\ncat\n");
  const auto turned = done(bench.run("turned", "1", {"--classes", bench.work / "turned.txt"}));
  CHECK(has(turned.out, "cls_score      3x16              from the model, rows by the name of the class"));
  bench.data.add("horse", 90, 60, {{"Cat", {10, 10, 40, 40}}, {"horse", {50, 20, 80, 50}}});
  bench.data.set("train", {"horse"});
  const auto some = done(bench.run("some", "1"));
  CHECK(has(some.out, "cls_score      3x16              1 of 2 classes from the model, horse fresh"));
  bench.data.add("cow", 90, 60, {{"cow", {10, 10, 40, 40}}, {"pig", {50, 20, 80, 50}}});
  bench.data.set("train", {"cow"});
  CHECK(has(done(bench.run("none", "1")).out,
            "bbox_pred      12x16             fresh: the model knows none of the classes"));
}

TEST_CASE("train: what a configuration file says of its preset is true") {
  const Bench bench;
  const std::string file = bench.work / "c.json";
  tool::write_file(file, "{\n  \"preset\": \"bccd\"\n}\n");
  refused(bench.run("run", "2", {"--config", file}),
          {file + ":2: preset: the file is laid over bccd, but --preset says small-data"});
  tool::write_file(file, "{\n\n  \"preset\": \"best\"\n}\n");
  refused(bench.run("run", "2", {"--config", file}),
          {file + ":3: preset: there is no preset best; there are "});
  tool::write_file(file, "{\"preset\": \"small-data\", \"seed\": 5}\n");
  done(bench.run("run", "2", {"--config", file}));
}

TEST_CASE("train: thresholds, keys and places that make no sense are named") {
  const Bench bench;
  refused(bench.run("run", "2", {"--set", "rpn.negative_iou=0.8"}),
          {"rpn.negative_iou is 0.8 and rpn.positive_iou 0.7"});
  tool::write_file(bench.work / "c.json", "{\"roi\": {\"background_iou_low\": 0.6}}");
  refused(bench.run("run", "2", {"--config", bench.work / "c.json"}),
          {"roi.background_iou_low is 0.6 and roi.background_iou_high 0.5"});
  done(bench.run("both", "2", {"--set", "rpn.positive_iou=0.2", "--set", "rpn.negative_iou=0.2"}));
  tool::write_file(bench.work / "c.json", "{\"model\": {\n\"set\": {\n\"colour\": 1}}}");
  refused(bench.run("run", "2", {"--config", bench.work / "c.json"}),
          {"c.json:3: model.set: there is no key 'colour'"});
  refused(bench.run("run", "2", {"--set", "model.set={}"}), {"--set model.set.short_side=800"});
  tool::write_file(bench.work / "file", "x");
  refused(bench.run("file", "2"), {"file: exists and is not a directory"});
  bench.data.set("train", {"p0", "gone"});
  refused(bench.run("run", "2"), {"ImageSets/Main/train.txt:2: image gone has no annotation",
                                  "`frcnn data check " + bench.data.path() + "`"});
  CHECK_FALSE(std::filesystem::exists(bench.work / "run"));
}

TEST_CASE("train: a warm-up without end and images that are learned and judged are warned of") {
  const Bench bench;
  const auto warm = done(bench.run("warm", "4", {"--set", "solver.warmup=200"}));
  CHECK(has(warm.err, "the rate grows over the first 200 updates (solver.warmup) and the run has 4"));
  CHECK_FALSE(has(done(bench.run("short", "4", {"--set", "solver.warmup=3"})).err, "warmup"));
  bench.data.set("both", {"p7", "p3", "p1"});
  const auto shared = done(bench.run("shared", "6", {"--val-set", "both"}));
  CHECK(has(shared.err,
            "--val-set both has 2 of the 3 images to evaluate on in common with --train-set train, "
            "the first is p3"));
  CHECK(done(bench.run("apart", "6", {"--val-set", "val"})).err.empty());
}
