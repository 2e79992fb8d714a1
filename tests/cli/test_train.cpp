// `frcnn train` as its users meet it: files, resuming, and everything that can go wrong.
#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "model_io/model_file.h"
#include "train_run.h"
#include "training/checkpoint.h"

using namespace frcnn;
using namespace frcnn::train_run;

namespace {

namespace fs = std::filesystem;

void bad(const tool::Result& result, const Strings& parts) {
  INFO(result.err);
  CHECK(result.code == 1);
  for (const std::string& part : parts) {
    INFO(part);
    CHECK(has(result.err, part));
  }
}

double mean_loss(const std::string& csv, int from, int to) {
  std::istringstream in(csv);
  std::string line;
  std::getline(in, line);
  double sum = 0;
  for (int i = 1; std::getline(in, line); ++i)
    if (i >= from && i <= to) {
      for (int comma = 0; comma < 3; ++comma) line = line.substr(line.find(',') + 1);
      sum += std::stod(line);
    }
  return sum / (to - from + 1);
}

// Replaces the training pictures; the classes stay those of the tiny detector.
void only(const Bench& bench, const std::string& id) { bench.data.set("train", {id}); }

void check_no_temporaries(const std::string& folder) {
  for (const auto& entry : fs::directory_iterator(folder)) CHECK(entry.path().extension() != ".tmp");
}

}  // namespace

TEST_CASE("train: a run's files are whole, its models detect, its twin is equal") {
  const Bench bench;
  const Strings more{"--val-set", "val",   "--checkpoint-every", "10", "--keep-checkpoints",
                     "2",         "--set", "solver.base_lr=0.01"};
  const auto result = bench.run("run", "40", more);
  INFO(result.err);
  REQUIRE(result.code == 0);
  CHECK(has(result.out, "6 images, 12 objects of 2 classes (cat, dog)"));
  CHECK(has(result.out, "from the model"));
  CHECK(has(result.out, "Memory: about"));
  CHECK(has(result.out, "40/40  loss"));
  CHECK(has(result.out, "40: mAP"));
  for (const char* name :
       {"config.json", "run.json", "log.jsonl", "loss.csv", "map.csv", "loss.svg", "map.svg",
        "best.safetensors", "last.safetensors", "checkpoint-30.safetensors", "checkpoint-40.safetensors"})
    CHECK(fs::exists(bench.file("run", name)));
  CHECK_FALSE(fs::exists(bench.file("run", "checkpoint-20.safetensors")));
  for (const char* name : {"best.safetensors", "last.safetensors", "checkpoint-40.safetensors"}) {
    const auto detected = tool::run(
        {"detect", bench.file("run", name), bench.data.picture("p6"), "--json", "-", "--score", "0"});
    INFO(detected.err);
    CHECK(detected.code == 0);
    CHECK(nlohmann::json::parse(detected.out)["images"][0]["file"] == bench.data.picture("p6"));
  }
  std::istringstream log(bench.bytes("run", "log.jsonl"));
  int updates = 0, evaluations = 0;
  for (std::string line; std::getline(log, line);) {
    const auto json = nlohmann::json::parse(line);
    json.contains("lr") ? ++updates : ++evaluations;
    if (json.contains("lr")) {
      CHECK(json["images"].size() == 2);
      CHECK(json["loss"].get<double>() > 0);
    } else {
      CHECK(json["per_class"].contains("cat"));
    }
  }
  CHECK(updates == 40);
  CHECK(evaluations == 4);
  CHECK(mean_loss(bench.bytes("run", "loss.csv"), 31, 40) < mean_loss(bench.bytes("run", "loss.csv"), 1, 10));

  const auto twin = bench.run("twin", "40", more);
  REQUIRE(twin.code == 0);
  CHECK(bench.bytes("twin", "last.safetensors") == bench.bytes("run", "last.safetensors"));
  CHECK(bench.bytes("twin", "best.safetensors") == bench.bytes("run", "best.safetensors"));
  CHECK(bench.bytes("twin", "config.json") == bench.bytes("run", "config.json"));
  Strings seeded = more;
  seeded.insert(seeded.end(), {"--seed", "4"});
  REQUIRE(bench.run("other", "40", seeded).code == 0);
  CHECK(bench.bytes("other", "last.safetensors") != bench.bytes("run", "last.safetensors"));
  // The resolved configuration is one that --config reads, to the same end.
  const auto again =
      tool::run({"train", "--config", bench.file("run", "config.json"), "--init", bench.model, "--data",
                 bench.data.path(), "--train-set", "train", "--out", bench.work / "again", "--threads", "1"});
  INFO(again.err);
  REQUIRE(again.code == 0);
  CHECK(bench.bytes("again", "last.safetensors") == bench.bytes("run", "last.safetensors"));
}

TEST_CASE("train: Ctrl-C finishes the update, saves, and the resumed run ends like one that was left alone") {
  const Bench bench;
  REQUIRE(bench.run("alone", "150").code == 0);
  for (const int signal : {SIGINT, SIGTERM}) {
    const std::string out = "stopped" + std::to_string(signal);
    Process process(bench.command(out, "150"));
    while (process.running() && !fs::exists(bench.file(out, "loss.csv")))
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    process.signal(signal);
    const int code = process.wait();
    INFO(process.err() + process.out());
    REQUIRE(code == 128 + signal);
    CHECK(has(process.err(), "finishing what is at hand, then saving"));
    CHECK(has(process.out(), "Stopped after update "));
    CHECK(has(process.out(), "Go on with: frcnn train --resume --out " + bench.work.path().string()));
    CHECK(find_checkpoints(bench.work / out).size() == 1);
    const auto resumed = tool::run({"train", "--resume", "--out", bench.work / out});
    INFO(resumed.err);
    CHECK(resumed.code == 0);
    CHECK(has(resumed.out, "Going on after update "));
    CHECK(bench.bytes(out, "last.safetensors") == bench.bytes("alone", "last.safetensors"));
  }
}

TEST_CASE("train: Ctrl-C saves also where it ended who reads the output") {
  const Bench bench;
  Process process(bench.command("run", "2000"), Output::pipe);
  while (process.running() && !fs::exists(bench.file("run", "loss.csv")))
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  process.signal(SIGSTOP);  // so that nothing is written between the two
  process.hang_up();
  process.signal(SIGINT);
  process.signal(SIGCONT);
  CHECK(process.wait() == 1);  // its last words were lost
  CHECK(find_checkpoints(bench.work / "run").size() == 1);
}

TEST_CASE("train: a checkpoint is exported as the model in it") {
  const Bench bench;
  REQUIRE(bench.run("run", "2").code == 0);
  std::vector<std::string> lines;
  for (const char* model : {"last.safetensors", "checkpoint-2.safetensors"}) {
    const auto exported = tool::run({"export", bench.file("run", model), bench.work / "out.caffemodel"});
    INFO(exported.err);
    REQUIRE(exported.code == 0);
    lines.push_back(exported.out);
  }
  CHECK(has(lines[0], " parameters, "));
  CHECK(lines[0] == lines[1]);
}

TEST_CASE("train: one process to a directory") {
  const Bench bench;
  Process first(bench.command("busy", "1000000"));
  while (first.running() && !fs::exists(bench.file("busy", "loss.csv")))
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  bad(tool::run({"train", "--resume", "--out", bench.work / "busy"}),
      {"busy: another process is training in this directory"});
  bad(bench.run("busy", "2"), {"busy: another process is training in this directory"});
  first.signal(SIGKILL);
  first.wait();
  tool::write_file(bench.file("busy", ".frcnn-1-0.tmp"), "what a killed process left");
  const auto second = bench.run("busy", "2");
  INFO(second.err);
  CHECK(second.code == 0);
  CHECK_FALSE(fs::exists(bench.file("busy", ".frcnn-1-0.tmp")));
}

TEST_CASE("train: resuming refuses what is another run, and says what differs") {
  const Bench bench;
  REQUIRE(bench.run("run", "6", {"--set", "solver.policy=step"}).code == 0);
  bad(bench.run("run", "6"),
      {"there is a run in this directory already (checkpoint-6.safetensors)", "--resume"});
  const auto resume = [&](const Strings& more) {
    Strings all{"train", "--resume", "--out", bench.work / "run"};
    all.insert(all.end(), more.begin(), more.end());
    return tool::run(all);
  };
  bad(resume({"--seed", "8"}), {"checkpoint-6.safetensors", "seed: 8 against 3"});
  bad(resume({"--set", "roi.batch=17"}), {"roi.batch: 17 against 16"});
  bad(resume({"--preset", "bccd"}), {"preset: \"bccd\" against \"small-data\""});
  bad(resume({"--train-set", "val"}),
      {"training images", "--train-set names val, the run learned from train"});
  bad(resume({"--classes", "voc", "--set", "data.unknown_classes=ignore"}), {"data.unknown_classes"});
  bad(tool::run({"train", "--resume", "--out", bench.work / "nowhere"}), {"nowhere", "no run to resume"});
  CHECK_FALSE(fs::exists(bench.work / "nowhere"));
  bad(resume({"--init", bench.data / "other.safetensors"}),
      {"the run started from " + bench.model, "other.safetensors"});
  CHECK(resume({"--init", bench.model}).code == 0);
  const auto threads = resume({"--threads", "2"});
  CHECK(threads.code == 0);
  CHECK(has(threads.err, "not bit for bit"));
  // With steps the number of updates does not change the rate, so a run may be made longer.
  const auto longer = resume({"--iters", "9", "--threads", "1"});
  INFO(longer.err);
  CHECK(longer.code == 0);
  CHECK(fs::exists(bench.file("run", "checkpoint-9.safetensors")));
  bench.data.write("Annotations/p0.xml", voc_folder::VocFolder::xml(90, 60, {{"cat", {1, 1, 30, 30}}}));
  bad(resume({"--iters", "12"}), {"training images, their order or their objects"});
  // Killed before its first checkpoint, a run starts from the beginning.
  fs::create_directory(bench.work / "young");
  for (const char* name : {"run.json", "config.json"})
    fs::copy_file(bench.file("run", name), bench.file("young", name));
  const auto young = tool::run({"train", "--resume", "--out", bench.work / "young"});
  INFO(young.err);
  CHECK(young.code == 0);
  CHECK(has(young.out, "no checkpoint yet: starting from the beginning"));
}

TEST_CASE("train: what was relative or left to the program is recorded as it was resolved") {
  const Bench bench;
  tool::Options there, elsewhere;
  there.directory = bench.work.path().string();
  elsewhere.directory = "/";
  fs::create_directory_symlink(bench.data.path(), bench.work / "data");
  Strings command{
      "train",       "--preset", "small-data", "--init",       "tiny.safetensors", "--data", "voc:data",
      "--train-set", "train",    "--out",      "run",          "--iters",          "2",      "--device",
      "auto",        "--algo",   "auto",       "--algo-cache", "times.json"};
  for (const std::string& word : bench.small()) command.push_back(word);
  const auto result = tool::run(command, there);
  INFO(result.err);
  REQUIRE(result.code == 0);
  const auto settings = nlohmann::json::parse(bench.bytes("run", "run.json"));
  CHECK(settings["data"] == bench.work / "data");
  CHECK(settings["init"] == bench.model);
  CHECK(settings["algo"] == "auto");
  CHECK(settings["algo_cache"] == bench.work / "times.json");
  const RunDevice device = read_checkpoint(bench.file("run", "checkpoint-2.safetensors")).device;
  CHECK(device.precision == "fp32");
  if (device.device == "cpu") {
    CHECK(device.algo == "ours");
    const int all = static_cast<int>(std::thread::hardware_concurrency());
    CHECK(device.threads == all);
    const auto same = tool::run(
        {"train", "--resume", "--out", bench.work / "run", "--threads", std::to_string(all)}, elsewhere);
    CHECK(same.code == 0);
    CHECK(same.err.empty());
    auto older = settings;  // of a version without the choice of kernels
    for (const char* key : {"algo", "algo_cache", "tune"}) older.erase(key);
    tool::write_file(bench.file("run", "run.json"), older.dump());
    const auto other = tool::run(
        {"train", "--resume", "--out", bench.work / "run", "--threads", std::to_string(all + 1)}, elsewhere);
    // A choice that only a GPU can honour shows that it is read back; a device that is named brings its own.
    const auto recorded = [&](const char* algo) {
      auto changed = settings;
      changed["algo"] = algo;
      changed["device"] = "cpu";
      changed["algo_cache"] = "";
      tool::write_file(bench.file("run", "run.json"), changed.dump());
      return Strings{"train", "--resume", "--out", bench.work / "run", "--iters", "2"};
    };
    bad(tool::run(recorded("cudnn"), elsewhere), {"cpu", "cuDNN"});
    bad(tool::run(recorded("fastest"), elsewhere), {"run.json", "algo", "fastest"});
    Strings here = recorded("cudnn");
    here.insert(here.end(), {"--device", "cpu"});
    CHECK(tool::run(here, elsewhere).code == 0);
    here.insert(here.end(), {"--algo", "cudnn"});
    bad(tool::run(here, elsewhere), {"cpu", "cuDNN"});
    // Another choice leaves the file of measured times behind, which goes with auto alone.
    tool::write_file(bench.file("run", "run.json"), settings.dump());
    CHECK(tool::run({"train", "--resume", "--out", bench.work / "run", "--algo", "ours"}, elsewhere).code ==
          0);
    auto damaged = settings;
    damaged.erase("scheme");
    tool::write_file(bench.file("run", "run.json"), damaged.dump());
    bad(tool::run({"train", "--resume", "--out", bench.work / "run"}, elsewhere), {"run.json", "scheme"});
    CHECK(has(other.err,
              fmt::format("with {} thread{}, it goes on on cpu in fp32 with {} threads: not bit for bit", all,
                          all == 1 ? "" : "s", all + 1)));
  }
}

TEST_CASE("train: a checkpoint that cannot be read is passed over for the one before, and named") {
  const Bench bench;
  REQUIRE(bench.run("alone", "6").code == 0);
  REQUIRE(bench.run("run", "6", {"--checkpoint-every", "2", "--keep-checkpoints", "0"}).code == 0);
  const std::string newest = bench.file("run", "checkpoint-6.safetensors");
  fs::resize_file(newest, fs::file_size(newest) / 2);
  const Strings resume{"train", "--resume", "--out", bench.work / "run"};
  const auto resumed = tool::run(resume);
  INFO(resumed.err);
  CHECK(resumed.code == 0);
  CHECK(has(resumed.err, "warning: " + newest));
  CHECK(has(resumed.err, "going on from the older " + bench.file("run", "checkpoint-4.safetensors")));
  CHECK(has(resumed.out, "Going on after update 4"));
  CHECK(bench.bytes("run", "last.safetensors") == bench.bytes("alone", "last.safetensors"));
  for (const auto& [step, path] : find_checkpoints(bench.work / "run")) fs::resize_file(path, 100);
  bad(tool::run(resume),
      {"checkpoint-2.safetensors", "without this file --resume starts from the beginning"});
}

TEST_CASE("train: another class count, layers by name, architectures from scratch") {
  Bench bench;
  bench.data.add("cow", 90, 60, {{"cow", {10, 10, 40, 40}}, {"cat", {50, 20, 80, 50}}});
  bench.data.set("train", {"p0", "cow"});
  const auto result = bench.run("run", "2");
  INFO(result.err);
  REQUIRE(result.code == 0);
  CHECK(has(result.out, "objects of 3 classes (cat, cow, dog)"));
  CHECK(has(result.out, "cls_score      4x16              2 of 3 classes from the model, cow fresh"));
  CHECK(has(result.out, "bbox_pred      16x16             2 of 3 classes from the model, cow fresh"));
  CHECK(load_model(bench.file("run", "last.safetensors"))->config.classes ==
        Strings{"__background__", "cat", "cow", "dog"});

  Strings scratch = from_scratch(bench, "zf", "1");
  scratch.insert(scratch.end(), {"--set", "model.set.anchor_scales=3,8,12,16"});
  const auto fresh = tool::run(scratch);
  INFO(fresh.err);
  REQUIRE(fresh.code == 0);
  CHECK(has(fresh.out, "All 12 layers start from random weights."));
  const auto config = nlohmann::json::parse(bench.bytes("zf", "config.json"));
  CHECK(config["units"]["input_offset"] != nlohmann::json({0.0, 0.0, 0.0}));  // measured
  CHECK(config["model"]["set"]["short_side"] == "96");
  const auto zf = load_model(bench.file("zf", "last.safetensors"));
  CHECK(zf->weights.at("conv1.weight").view.shape == Shape{4, 3, 7, 7});
  CHECK(zf->config.anchor_scales == std::vector<double>{3, 8, 12, 16});
}

TEST_CASE("train: wrong usage and input that does not fit") {
  const Bench bench;
  const auto usage = [](const Strings& arguments, const std::string& part) {
    const auto result = tool::run(arguments);
    INFO(result.err);
    CHECK(result.code == 2);
    CHECK(has(result.err, part));
  };
  usage({"train"}, "--out");
  usage({"train", "--out", "x"}, "--data (or --resume)");
  usage({"train", "--out", "x", "--data", "y"}, "--train-set (or --resume)");
  usage({"train", "--out", "x", "--data", "y", "--train-set", "z", "--arch", "resnet"}, "--arch");
  usage({"train", "--out", "x", "--data", "y", "--train-set", "z", "--scheme", "alternating"}, "--scheme");
  usage({"train", "--out", "x", "--data", "y", "--train-set", "z", "--set", "seed"}, "KEY=VALUE");
  bad(bench.run("run", "2", {"--set", "lr=3"}), {"no key 'lr'", "solver.base_lr"});
  bad(bench.run("run", "2", {"--set", "solver.base_lr=0"}), {"solver.base_lr: must be a number above 0"});
  bad(bench.run("run", "2", {"--val-set", "none"}), {"none.txt"});
  bad(bench.run("run", "2", {"--classes", bench.work / "none.txt"}), {"none.txt"});
  tool::write_file(bench.work / "c.json", "{\n  \"solver\": {\n    \"momentun\": 0.9\n  }\n}\n");
  bad(bench.run("run", "2", {"--config", bench.work / "c.json"}),
      {"c.json:3: unknown key 'solver.momentun'"});
  bad(bench.run("run", "2", {"--set", "model.set.colour=3"}), {"model.set: there is no key 'colour'"});
  bad(tool::run({"train", "--data", bench.data.path(), "--train-set", "train", "--out", bench.work / "run"}),
      {"frozen: conv1_1 would keep its random weights", "--init"});
  fs::remove(bench.data.picture("p7"));
  bad(bench.run("run", "2", {"--val-set", "val"}), {"p7", "no image of this name"});
  CHECK_FALSE(fs::exists(bench.work / "run"));  // nothing was written by any of these
}

TEST_CASE("train: rates that are too high end with the tensor's and the image's name") {
  const Bench bench;
  const auto result =
      bench.run("run", "200",
                {"--set", "solver.base_lr=100000", "--set", "solver.clip_norm=0", "--set", "solver.warmup=0",
                 "--checkpoint-every", "1", "--set", "solver.policy=step"});
  bad(result, {"update "});
  CHECK((has(result.err, "NaN or an infinity") || has(result.err, "beyond float32") ||
         has(result.err, "is inf")));
  CHECK((has(result.err, ": p") || has(result.err, "images of this update: p")));
  const auto kept = find_checkpoints(bench.work / "run");
  if (kept.empty()) {
    CHECK(has(result.err, "no checkpoint was written yet"));
  } else {
    CHECK(has(result.err, "the last checkpoint is " + kept.back().second));
    for (const auto& [name, tensor] : read_checkpoint(kept.back().second).state)
      for (const float x : tensor.data) REQUIRE(std::isfinite(x));
  }
}

TEST_CASE("train: a full disk before the first checkpoint leaves nothing that is cut short") {
  const Bench bench;
  tool::Options limit;
  limit.file_size_limit = 8192;  // less than any model
  const auto result = tool::run(bench.command("run", "4", {"--checkpoint-every", "2"}), limit);
  bad(result, {"last.safetensors", "File too large", "no checkpoint was written yet"});
  CHECK(find_checkpoints(bench.work / "run").empty());
  CHECK_FALSE(fs::exists(bench.file("run", "last.safetensors")));
  check_no_temporaries(bench.work / "run");
  const auto resumed = tool::run({"train", "--resume", "--out", bench.work / "run"});
  INFO(resumed.err);
  CHECK(resumed.code == 0);
}

TEST_CASE("train: a full disk leaves the last checkpoint, and the run goes on from it to the same end") {
  const Bench bench;
  REQUIRE(bench.run("run", "4", {"--checkpoint-every", "2", "--keep-checkpoints", "0"}).code == 0);
  const std::string wanted = bench.bytes("run", "last.safetensors"),
                    kept = bench.bytes("run", "checkpoint-2.safetensors");
  REQUIRE(kept.size() > wanted.size() + 1024);
  const Strings resume{"train", "--resume", "--out", bench.work / "run"};
  struct Case {
    std::size_t bytes;
    const char* refused;
  };
  for (const Case& one : {Case{wanted.size() - 512, "last.safetensors"},
                          Case{(wanted.size() + kept.size()) / 2, "checkpoint-4.safetensors"}}) {
    INFO(one.refused);
    fs::remove(bench.file("run", "checkpoint-4.safetensors"));
    fs::remove(bench.file("run", "last.safetensors"));
    tool::Options limit;
    limit.file_size_limit = static_cast<long>(one.bytes);
    bad(tool::run(resume, limit),
        {one.refused, "File too large", "the last checkpoint is ", "checkpoint-2."});
    CHECK(bench.bytes("run", "checkpoint-2.safetensors") == kept);
    CHECK(find_checkpoints(bench.work / "run").size() == 1);
    check_no_temporaries(bench.work / "run");
    const auto resumed = tool::run(resume);
    INFO(resumed.err);
    CHECK(resumed.code == 0);
    CHECK(bench.bytes("run", "last.safetensors") == wanted);
  }
}

TEST_CASE("train: sets that are hard to learn from") {
  Bench bench;
  const auto trains = [&](const std::string& name, const Strings& more = {}) {
    INFO(name);
    const auto result = bench.run(name, "6", more);
    INFO(result.err);
    CHECK(result.code == 0);
    if (result.code == 0)
      for (const auto& [key, tensor] : read_checkpoint(bench.file(name, "checkpoint-6.safetensors")).state)
        for (const float x : tensor.data) REQUIRE(std::isfinite(x));
    return result;
  };
  only(bench, "p0");
  trains("one-image");
  bench.data.add("empty", 90, 60, {});
  bench.data.set("train", {"empty", "p0"});
  trains("empty", {"--set", "augment.aspect_grouping=false"});
  CHECK(has(trains("without", {"--set", "data.use_images_without_objects=false"}).out, "1 image, 2 objects"));
  only(bench, "empty");
  bad(bench.run("nothing", "6"), {"no object to learn"});
  bench.data.add(
      "border", 90, 60,
      {{"cat", {1, 1, 90, 60}}, {"dog", {1, 1, 10, 60}}, {"cat", {90, 60, 90, 60}}, {"dog", {1, 1, 1, 1}}});
  only(bench, "border");
  trains("border", {"--set", "data.min_box_side=1"});
  bench.data.add("crowd", 90, 60, [] {
    std::vector<voc_folder::Object> objects;
    for (int i = 0; i < 600; ++i)
      objects.push_back({i % 2 ? "cat" : "dog", {1 + i % 60, 1 + i % 37, 16 + i % 60, 16 + i % 37}});
    return objects;
  }());
  only(bench, "crowd");
  trains("crowd");  // the 12x8 cells have 576 anchors
  bench.data.add("flat", 96, 8,
                 {{"cat", {1, 1, 40, 8}}});  // 64 pixels high would be 768 wide: it becomes 96x8
  only(bench, "flat");
  trains("no-inside-anchor");
  bench.data.add("named", 90, 60, {{"cat", {10, 10, 40, 40}}});
  tool::write_file(bench.work / "classes.txt", "cat\ndog\ncow\n");
  only(bench, "named");
  CHECK(has(trains("absent-class", {"--classes", bench.work / "classes.txt"}).err,
            "the class cow does not occur"));
}

TEST_CASE("train: a broken image in mid-epoch is fatal and named, or skipped and logged") {
  const Bench bench;
  bench.data.write("JPEGImages/p4.png", "broken");
  bad(bench.run("fatal", "12"), {"p4.png", "not a JPEG, PNG or BMP image"});
  const auto skipping = bench.run("skip", "12", {"--set", "data.broken_images=skip"});
  INFO(skipping.err);
  CHECK(skipping.code == 0);
  CHECK(has(skipping.err, "warning: skipped: " + bench.data.picture("p4")));
  CHECK(has(bench.bytes("skip", "log.jsonl"), "\"skipped\":["));
}

TEST_CASE(
    "train: a run that died on a broken image is resumed without it, images to check with are treated "
    "alike") {
  const Bench bench;
  REQUIRE(bench.run("run", "12", {"--checkpoint-every", "4", "--keep-checkpoints", "0"}).code == 0);
  for (const char* later : {"checkpoint-8.safetensors", "checkpoint-12.safetensors"})
    fs::remove(bench.file("run", later));
  bench.data.write("JPEGImages/p4.png", "broken");
  Strings resume{"train", "--resume", "--out", bench.work / "run"};
  bad(tool::run(resume), {"p4.png", "--set data.broken_images=skip leaves such images out"});
  resume.insert(resume.end(), {"--set", "data.broken_images=skip"});
  const auto resumed = tool::run(resume);
  INFO(resumed.err);
  CHECK(resumed.code == 0);
  CHECK(has(resumed.err, "warning: skipped: " + bench.data.picture("p4")));

  bench.data.set("train", {"p0", "p1", "p2"});
  bench.data.write("JPEGImages/p7.png", "broken");
  const Strings checked{"--val-set", "val"};
  bad(bench.run("fatal", "2", checked),
      {"p7.png", "--set data.broken_images=skip", "checkpoint-2.safetensors"});
  const auto skipped = bench.run("skip", "2", {"--val-set", "val", "--set", "data.broken_images=skip"});
  INFO(skipped.err);
  CHECK(skipped.code == 0);
  CHECK(has(skipped.err, "left out of the evaluation: " + bench.data.picture("p7")));
  CHECK(has(skipped.out, "2: mAP"));
  fs::remove(bench.data.picture("p7"));
  const auto missing = bench.run("missing", "2", {"--val-set", "val", "--set", "data.broken_images=skip"});
  CHECK(missing.code == 0);
  CHECK(has(missing.err, "left out of the evaluation: "));
}
