// What the files of the fake runtime share. Nobody else includes it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/simt/fake_runtime.h"

// What a graph does, in order, with all that it was given by value.
struct FrcnnFakeGraph {
  struct Node {
    std::function<void()> start;  // of a kernel, or null:
    void* to = nullptr;           // of a copy or a fill
    const void* from = nullptr;   // of a copy
    std::size_t bytes = 0;
    cudaMemcpyKind kind = cudaMemcpyHostToDevice;
    int byte = 0;
    const void* kernel = nullptr;  // of `start`
  };
  int device = 0;
  std::vector<Node> nodes;
};
struct FrcnnFakeGraphExec {
  FrcnnFakeGraph graph;  // as it was instantiated; the graph it was made of may go
};

struct FrcnnFakeEvent {
  int device;
  double ms = -1;  // by the machine's clock; not recorded yet
};

namespace frcnn::simt::fake {

struct Block {
  std::size_t bytes;
  int device;  // -1: of the host
};

// A copy that is on its way. `content` is the source as it was when the copy was queued: the emulator runs
// kernels at once, so in the stream's order everything before has happened.
struct Copy {
  void* to;
  const void* from;
  std::vector<unsigned char> content;
  bool to_host;
};

struct Capture {
  FrcnnFakeGraph graph;
  std::thread::id thread;  // that began it
  bool invalid = false;
};

struct Stream final : FrcnnSimtStream {
  Stream(int d, int p) : device(d), priority(p) {}
  ~Stream() override;
  void launch(const void* kernel, const std::function<void()>& start) override;
  void refuse_default_stream(const void* kernel) override;

  int device, priority;
  std::vector<Copy> copies;
  std::optional<Capture> capture;
};

struct State {
  FakeMachine::Properties properties;
  std::map<char*, Block> blocks;  // by first byte
  std::set<Stream*> streams;
  std::set<FrcnnFakeGraph*> graphs;
  std::set<FrcnnFakeGraphExec*> executables;
  std::map<int, cudaError_t> dead;  // by device
  std::map<std::string, int> calls;
  int replayed_kernels = 0;
  std::size_t in_use = 0;
  int fail_at = 0;  // calls left until the wanted error; 0: none wanted
  cudaError_t fail_with = cudaSuccess;
  bool fail_sticky = false, has_failed = false;
  std::string fail_call, failed_call, violation;
  std::function<void()> on_launch;
  std::set<FrcnnFakeEvent*> events;
  double clock_ms = 0;  // goes on with kernels that ran
  std::function<double(const void* kernel)> kernel_ms;
};

inline std::mutex mutex;
inline std::unique_ptr<State> machine;
inline thread_local int current_device = 0;
inline thread_local cudaError_t last_error = cudaSuccess;

// All below under the lock.
cudaError_t result(cudaError_t error);  // remembers it
void violate(const std::string& what);
// The front of every call that can fail: counts it and says what it must fail with, if anything.
cudaError_t enter(const std::string& call, int device);
// The same of a call that puts work on the stream: an error ends its capture.
cudaError_t enter_stream(const std::string& call, Stream& stream);
// The same of a call that must not be made by a thread that captures.
cudaError_t enter_outside_capture(const std::string& call, int device);
// Moves the clock on by what the kernel takes.
void take_time(const void* kernel);
// The allocation that holds all of these bytes, or null.
const Block* block_of(const void* memory, std::size_t bytes);
cudaError_t copy(Stream& stream, const FrcnnFakeGraph::Node& node);
cudaError_t fill(Stream& stream, const FrcnnFakeGraph::Node& node);

}  // namespace frcnn::simt::fake
