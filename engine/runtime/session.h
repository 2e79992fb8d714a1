// Running graphs: one arena, a bounded cache of planned graphs.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"
#include "graph/plan.h"
#include "runtime/device.h"
#include "runtime/weights.h"

namespace frcnn {

// Milliseconds per node of the program, filled by a timed run.
struct NodeTime {
  std::string layer;
  Stage stage;
  std::string implementation;
  double ms;
};

// A graph lowered, planned and bound to memory. Not thread-safe; after warm-up run() allocates nothing of ours.
class Executable {
 public:
  enum class Memory { arena, guarded };        // guarded: every value alone, NaN-filled, between checked guard zones
  // `arena` may be null only for guarded memory. Throws Error(out_of_memory) when the plan needs more than
  // arena_bytes, and then nothing has changed.
  Executable(const Graph& graph, std::span<const std::string> keep, const Weights& weights, Device& device,
             std::shared_ptr<void> arena, std::size_t arena_bytes, Memory memory = Memory::arena);
  ~Executable();
  Executable(const Executable&) = delete;
  Executable& operator=(const Executable&) = delete;

  const Graph& graph() const { return graph_; }            // as lowered
  const Plan& plan() const { return plan_; }
  TensorView view(std::string_view name) const;            // device memory; throws Error(invalid_argument)
  void set(std::string_view name, const void* host, std::size_t bytes);
  void get(std::string_view name, void* host, std::size_t bytes) const;
  void run(std::vector<NodeTime>* times = nullptr);        // guarded: throws naming the layer that wrote outside
  std::string implementation(std::size_t node) const { return steps_[node].prepared.implementation; }

 private:
  struct Step {
    Prepared prepared;
    std::vector<TensorView> in, out;
    void* workspace = nullptr;
  };
  Graph graph_;
  Plan plan_;
  Device& device_;
  std::vector<Step> steps_;
  std::vector<TensorView> views_;                          // by ValueId of graph_
  std::vector<std::shared_ptr<const void>> packed_;        // keeps packed weights alive
  std::shared_ptr<void> arena_;
  struct Guarded;
  std::unique_ptr<Guarded> guarded_;
};

struct SessionOptions {
  std::size_t arena_bytes = 0;                 // reserved once; plans that need more are refused
  std::size_t cached_plans = 16;               // least recently used ones are dropped
};

// One arena on one device, and the executables that share it. Running one overwrites the values of the others.
// One thread at a time: a second caller gets Error(invalid_argument), nothing is corrupted.
class Session {
 public:
  Session(std::shared_ptr<const Weights> weights, std::shared_ptr<Device> device, SessionOptions options);

  // The executable cached under `key`, or a new one made of build() with `keep`.
  Executable& executable(const std::string& key, const std::function<Graph()>& build, std::span<const std::string> keep);

  Device& device() const { return *device_; }
  std::size_t cached() const { return cache_.size(); }
  std::size_t arena_bytes() const { return options_.arena_bytes; }

 private:
  std::shared_ptr<const Weights> weights_;
  std::shared_ptr<Device> device_;
  SessionOptions options_;
  std::shared_ptr<void> arena_;
  std::list<std::pair<std::string, std::unique_ptr<Executable>>> cache_;   // most recently used first
};

}  // namespace frcnn
