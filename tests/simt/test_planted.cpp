// Each planted bug is caught: by the emulator, by a wrong result, or by the sanitizer of this build.
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "catch.h"
#include "tests/simt/sanitizers.h"

namespace {

const std::vector<std::string> kOrders = {"forward", "reverse", "random1", "random2"};

struct Ended {
  int status = -1;
  std::string text;
};

Ended run(const std::string& bug, const std::string& order, const char* program = FRCNN_SIMT_PLANTED) {
  Ended ended;
  const std::string command = std::string("'") + program + "' " + bug + " " + order + " 2>&1";
  std::FILE* const pipe = popen(command.c_str(), "r");
  REQUIRE(pipe);
  std::array<char, 4096> part;
  while (const std::size_t count = std::fread(part.data(), 1, part.size(), pipe))
    ended.text.append(part.data(), count);
  const int status = pclose(pipe);
  if (WIFEXITED(status)) ended.status = WEXITSTATUS(status);
  return ended;
}

// "planted.cu:33", the line with this comment.
std::string line_with(const std::string& comment) {
  std::ifstream source(FRCNN_SOURCE_DIR "/tests/simt/planted.cu");
  std::string line;
  for (int number = 1; std::getline(source, line); ++number) {
    const std::size_t at = line.rfind("// " + comment);
    if (at != std::string::npos && at + 3 + comment.size() == line.size())
      return "planted.cu:" + std::to_string(number);
  }
  FAIL("planted.cu has no line with the comment " << comment);
  return "";
}

enum class Build { plain, address, thread };
constexpr Build kBuild = frcnn::simt::kRaceCheck      ? Build::thread
                         : frcnn::simt::kAddressCheck ? Build::address
                                                      : Build::plain;

constexpr int kWrong = 1, kRefused = 3, kRace = 66, kAddress = 1;

// In every order of `orders`, the bug must end the program with `status` and one of its words in the output.
void caught(const std::string& bug, int status, const std::vector<std::string>& words,
            const std::vector<std::string>& orders = kOrders) {
  for (const std::string& order : orders) {
    const Ended ended = run(bug, order);
    INFO("simt_planted " << bug << " " << order << " ended with " << ended.status << ":\n"
                         << ended.text.substr(0, 3000));
    CHECK(ended.status == status);
    for (const std::string& word : words) {
      INFO("looking for: " << word);
      CHECK(ended.text.find(word) != std::string::npos);
    }
  }
}

}  // namespace

TEST_CASE("the planted kernels without their bugs are right in every order") {
  for (const std::string& order : kOrders) {
    const Ended ended = run("none", order);
    INFO(ended.text.substr(0, 3000));
    CHECK(ended.status == 0);
  }
}

TEST_CASE("a bug that is not in the table is an error of the test") {
  CHECK(run("no_such_bug", "forward").status == 4);
}

TEST_CASE("planted: shared memory overrun") {
  if (kBuild == Build::address) {
    caught("shared_overrun", kAddress,
           {"AddressSanitizer: use-after-poison", "shared_overrun_kernel", "planted.cu"});
    caught("static_overrun", kAddress, {"planted.cu", "out of bounds"});
  } else {
    caught("shared_overrun", kRefused,
           {"shared_overrun_kernel<true>, block (0, 0, 0)", "outside of what was carved",
            "0 bytes past the end of a piece of 256 bytes"});
  }
}

TEST_CASE("planted: store past the output") {
  if (kBuild != Build::address) {
    WARN("only the AddressSanitizer build sees a store past the output");
    return;
  }
  caught("store_past_output", kAddress,
         {"AddressSanitizer: heap-buffer-overflow", "store_past_output_kernel", "planted.cu"});
  caught("stack_overrun", kAddress, {"planted.cu", "out of bounds"});
}

TEST_CASE("planted: return before a barrier") {
  caught("early_return", kRefused,
         {"deadlock in block (0, 0, 0)", "returned: thread 5",
          "waiting at __syncthreads (planted.cu:", "threads 0-4, 6-63"});
}

TEST_CASE("planted: uninitialised shared memory") { caught("uninitialised", kWrong, {"nan, expected 18"}); }

TEST_CASE("planted: missing wait for an asynchronous copy") {
  caught("missing_wait", kWrong, {"nan, expected 1"});
}

TEST_CASE("planted: missing barrier") {
  if (kBuild == Build::thread) {
    for (const std::string bug :
         {"missing_barrier", "missing_syncwarp", "missing_second_barrier", "missing_second_syncwarp"}) {
      caught(bug, kRace,
             {"ThreadSanitizer: data race", bug + "_kernel<true> ", line_with(bug + ": store"),
              line_with(bug + ": load")});
    }
    caught("early_refill", kRace, {"ThreadSanitizer: data race", "early_refill_kernel<true> "});
  } else {
    caught("missing_barrier", kWrong, {"nan, expected"});
    caught("missing_syncwarp", kWrong, {"nan, expected"});
    caught("missing_second_barrier", kWrong, {", expected"});
    caught("missing_second_syncwarp", kWrong, {", expected"});
    caught("early_refill", kWrong, {", expected"});
  }
}

TEST_CASE("planted: race between two blocks") {
  if (kBuild != Build::thread) {
    WARN("only the ThreadSanitizer build sees a race that leaves the right result");
    return;
  }
  caught("race", kRace, {"ThreadSanitizer: data race", "race_kernel<true> ", line_with("race: other")});
}

TEST_CASE("planted: divergent collective") {
  caught("divergent", kRefused,
         {"divergent warp: lane ", "__shfl_xor_sync at " + line_with("divergent: one"),
          "__shfl_xor_sync at " + line_with("divergent: other"), "mask 0xffffffff"});
  caught("absent_lane", kRefused,
         {"deadlock", "waiting at __shfl_sync (planted.cu:", "waiting at __syncthreads (planted.cu:"});
}

TEST_CASE("planted: waiting for a block that does not run") {
  caught("spin_without_cooperation", kRefused, {"a spin-wait that nobody ends", "needs a cooperative launch"},
         {"forward"});
}

TEST_CASE("the portable stack switch does the same") {
  for (const std::string& order : kOrders) {
    const Ended ended = run("none", order, FRCNN_SIMT_PLANTED_UCONTEXT);
    INFO(ended.text.substr(0, 3000));
    CHECK(ended.status == 0);
  }
  CHECK(run("early_return", "forward", FRCNN_SIMT_PLANTED_UCONTEXT).text.find("returned: thread 5") !=
        std::string::npos);
}
