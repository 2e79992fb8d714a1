// Running graphs: one arena, a bounded cache of planned graphs.
#pragma once

#include <array>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
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

// A graph lowered, planned and bound to memory. Not thread-safe; run() allocates nothing of ours.
class Executable {
 public:
  enum class Memory { arena, guarded };        // guarded: every value alone, NaN-filled, between checked guard zones
  // Without an arena it allocates one of its own, as large as the plan. Throws Error(out_of_memory) when the plan needs
  // more than arena_bytes, before anything is bound.
  Executable(const Graph& graph, std::span<const std::string> keep, const Weights& weights, Device& device,
             std::shared_ptr<void> arena = nullptr, std::size_t arena_bytes = 0, Memory memory = Memory::arena);
  ~Executable();
  Executable(const Executable&) = delete;
  Executable& operator=(const Executable&) = delete;

  const Graph& graph() const { return graph_; }            // as lowered
  const Plan& plan() const { return plan_; }
  TensorView view(std::string_view name) const;            // device memory; throws Error(invalid_argument)
  // Copies between the host and a value; `bytes` is checked against its size.
  void set(std::string_view name, const void* host, std::size_t bytes);
  void get(std::string_view name, void* host, std::size_t bytes) const;
  // Fills `times` (cleared first) with one entry per node when given, waiting for the device after each.
  // Guarded: throws Error(device) naming the layer that wrote outside its output.
  void run(std::vector<NodeTime>* times = nullptr);
  const std::string& implementation(std::size_t node) const { return steps_[node].prepared.implementation; }

 private:
  struct Step {
    Prepared prepared;
    std::vector<TensorView> in, out;
    void* workspace = nullptr;
  };
  struct Guarded;
  void prepare(const Weights& weights);
  void bind();

  Graph graph_;
  Plan plan_;
  Device& device_;
  std::vector<Step> steps_;
  std::vector<std::size_t> workspace_bytes_;               // by node
  std::vector<TensorView> views_;                          // by ValueId of graph_
  std::vector<std::shared_ptr<const void>> packed_;        // keeps packed weights alive
  std::shared_ptr<void> arena_;
  std::unique_ptr<Guarded> guarded_;
};

using PlanKey = std::array<std::int64_t, 8>;   // whatever tells two graphs of one session apart

struct SessionOptions {
  std::size_t arena_bytes = 0;                 // reserved once; plans that need more are refused
  std::size_t cached_plans = 16;               // at least 1; least recently used ones are dropped
};

// One arena on one device, and the executables that share it. Running one overwrites the values of the others.
// For one thread at a time: whoever uses a session from several holds mutex() from executable() to the last get().
class Session {
 public:
  Session(std::shared_ptr<const Weights> weights, std::shared_ptr<Device> device, SessionOptions options);

  // The executable cached under `key`, or a new one made of build().
  Executable& executable(const PlanKey& key, const std::function<Graph()>& build);

  const Weights& weights() const { return *weights_; }
  Device& device() const { return *device_; }
  std::mutex& mutex() { return mutex_; }
  std::size_t cached() const { return cache_.size(); }
  std::size_t arena_bytes() const { return options_.arena_bytes; }

 private:
  std::shared_ptr<const Weights> weights_;
  std::shared_ptr<Device> device_;
  SessionOptions options_;
  std::shared_ptr<void> arena_;
  std::mutex mutex_;
  std::list<std::pair<PlanKey, std::unique_ptr<Executable>>> cache_;   // most recently used first
};

}  // namespace frcnn
