// Runs of `frcnn train` on a tiny detector, alone or with signals in the middle.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "catch.h"
#include "run_tool.h"
#include "tiny_model.h"
#include "voc_folder.h"

namespace frcnn::train_run {

using Strings = std::vector<std::string>;

// Where a process's output goes: into files, or to somebody who can go away.
enum class Output { files, pipe };

// A process of the tool.
class Process {
 public:
  explicit Process(const Strings& arguments, Output output = Output::files) {
    if (output == Output::pipe) {  // both streams into one, as `2>&1 | tee` has them
      if (::mkfifo((streams_ / "out").c_str(), 0600) != 0 ||
          ::link((streams_ / "out").c_str(), (streams_ / "err").c_str()) != 0)
        throw std::runtime_error("cannot make a pipe");
      reader_ = ::open((streams_ / "out").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    }
    std::vector<std::string> line{FRCNN_TOOL};
    line.insert(line.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (std::string& word : line) argv.push_back(word.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, (streams_ / "out").c_str(), O_WRONLY | O_CREAT, 0600);
    posix_spawn_file_actions_addopen(&actions, 2, (streams_ / "err").c_str(), O_WRONLY | O_CREAT, 0600);
    posix_spawnattr_t attributes;  // whatever started the tests may ignore SIGPIPE
    posix_spawnattr_init(&attributes);
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    posix_spawnattr_setsigdefault(&attributes, &pipe);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    if (posix_spawn(&pid_, argv[0], &actions, &attributes, argv.data(), environ) != 0)
      throw std::runtime_error("cannot start the tool");
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
  }
  ~Process() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    hang_up();
  }
  void hang_up() {  // who reads the pipe is gone
    if (reader_ >= 0) ::close(reader_);
    reader_ = -1;
  }
  void signal(int number) const {
    if (pid_ > 0) ::kill(pid_, number);
  }
  bool running() {
    if (pid_ > 0 && ::waitpid(pid_, &status_, WNOHANG) == pid_) pid_ = 0;
    return pid_ > 0;
  }
  int wait() {
    if (pid_ > 0) ::waitpid(pid_, &status_, 0);
    pid_ = 0;
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
  }
  std::string out() const { return tool::read_file(streams_ / "out"); }
  std::string err() const { return tool::read_file(streams_ / "err"); }

 private:
  tool::TempDir streams_;
  pid_t pid_ = 0;
  int status_ = 0, reader_ = -1;
};

// The tiny detector, six pictures of cats and dogs to learn from and two to check with.
struct Bench {
  voc_folder::VocFolder data;
  tool::TempDir work;
  std::string model = work / "tiny.safetensors";

  Bench() {
    voc_folder::fill(data, 8);
    data.set("train", {"p0", "p1", "p2", "p3", "p4", "p5"});
    data.set("val", {"p6", "p7"});
    tiny::save(model);
  }
  // Few of everything, so that an update takes milliseconds.
  Strings small() const {
    Strings all;
    for (const char* set : {"proposals.pre_nms_top_n=100", "proposals.post_nms_top_n=30", "roi.batch=16",
                            "rpn.batch=32", "solver.warmup=5", "augment.transpose=true"}) {
      all.emplace_back("--set");
      all.emplace_back(set);
    }
    return all;
  }
  Strings command(const std::string& out, const std::string& iterations, const Strings& more = {}) const {
    Strings all{"train",    "--preset",  "small-data",  "--init",    model,
                "--data",   data.path(), "--train-set", "train",     "--out",
                work / out, "--iters",   iterations,    "--threads", "1"};
    for (const Strings& part : {small(), more}) all.insert(all.end(), part.begin(), part.end());
    return all;
  }
  tool::Result run(const std::string& out, const std::string& iterations, const Strings& more = {}) const {
    return tool::run(command(out, iterations, more));
  }
  std::string file(const std::string& out, const std::string& name) const {
    return work / (out + "/" + name);
  }
  std::string bytes(const std::string& out, const std::string& name) const {
    return tool::read_file(file(out, name));
  }
};

inline bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// A run from random weights as the preset bccd makes one: units of its own, a measured offset, one image to
// an update.
inline Strings from_scratch(const Bench& bench, const std::string& out, const std::string& iterations) {
  Strings all{"train",          "--preset",        "bccd",        "--arch",    "zf-small",
              "--data",         bench.data.path(), "--train-set", "train",     "--out",
              bench.work / out, "--iters",         iterations,    "--threads", "1"};
  for (const char* set :
       {"model.conv_widths=4,6,8,8,6", "model.rpn_width=6", "model.fc6_width=8", "model.fc7_width=8",
        "model.set.short_side=96", "model.set.long_side=160", "model.set.anchor_scales=1,2",
        "proposals.pre_nms_top_n=100", "proposals.post_nms_top_n=30", "roi.batch=16", "rpn.batch=32"}) {
    all.emplace_back("--set");
    all.emplace_back(set);
  }
  return all;
}

// Until the process writes a file into `folder`, whose temporary then lies there, or has ended.
inline void wait_for_write(Process& process, const std::string& folder) {
  while (process.running()) {
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(folder, ignored))
      if (entry.path().extension() == ".tmp") return;
  }
}

// Kills runs of `command(out)` `times` times, at random moments or in the middle of a write, resumes each
// until it is done, and compares it with one that was left alone.
inline void check_kills(const Bench& bench, const std::function<Strings(const std::string& out)>& command,
                        int times, unsigned seed) {
  const auto with_saves = [&](const std::string& out) {
    Strings all = command(out);
    all.insert(all.end(), {"--checkpoint-every", "3", "--val-set", "val", "--evaluate-every", "20"});
    return all;
  };
  auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  const auto alone = tool::run(with_saves("alone"));
  INFO(alone.err);
  REQUIRE(alone.code == 0);
  double seconds = elapsed();  // of a whole run; less than this one's where the machine was busy
  std::mt19937 random(seed);
  int killed = 0, finished = 0;
  for (int run = 0; killed < times; ++run) {
    const std::string out = "killed" + std::to_string(run);
    int starts = 0;
    for (bool done = false; !done; ++starts) {
      REQUIRE(starts < 100);
      const bool begun = std::filesystem::exists(bench.file(out, "run.json"));
      start = std::chrono::steady_clock::now();
      Process process(begun ? Strings{"train", "--resume", "--out", bench.work / out} : with_saves(out));
      // The whole run's length at first, then longer, so that it comes to an end.
      const double wait = seconds * (random() / 4294967296.0) * (starts < 4 ? 1.0 : 3.0);
      if (killed < times) {
        std::this_thread::sleep_for(std::chrono::duration<double>(wait));
        if (random() % 2 == 0) wait_for_write(process, bench.work / out);
        process.signal(SIGKILL);
      }
      const int code = process.wait();
      if (code == 128 + SIGKILL) {
        ++killed;
        continue;
      }
      INFO(process.err());
      REQUIRE(code == 0);
      done = true;
      ++finished;
      if (starts == 0) seconds = std::min(seconds, elapsed());
    }
    CHECK(bench.bytes(out, "last.safetensors") == bench.bytes("alone", "last.safetensors"));
    CHECK(bench.bytes(out, "best.safetensors") == bench.bytes("alone", "best.safetensors"));
  }
  INFO("killed " << killed << " times, finished " << finished);
  CHECK(killed >= times);
  CHECK(finished > 0);
}

}  // namespace frcnn::train_run
