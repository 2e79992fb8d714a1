// Running graphs: one arena, a bounded cache of planned graphs.
#pragma once

#include <array>
#include <cstdint>
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
#include "runtime/staging.h"
#include "runtime/states.h"
#include "runtime/weights.h"

namespace frcnn {

// Milliseconds per node of the program, filled by a timed run.
struct NodeTime {
  std::string layer;
  Stage stage;
  std::string implementation;
  double ms;
};

// How executables were run.
struct RunCounts {
  std::int64_t eager = 0;       // node by node, the runs that record among them
  std::int64_t recordings = 0;  // made; on a GPU, CUDA graphs captured
  std::int64_t replays = 0;     // runs that were the replay of a recording
};

// guarded: every value alone, NaN-filled, between checked guard zones. none: planned and its weights packed,
// never run.
enum class ProgramMemory { arena, guarded, none };

struct ExecutableOptions {
  ProgramMemory memory = ProgramMemory::arena;
  std::shared_ptr<void> arena = nullptr;  // none: one of its own, as large as the plan
  std::size_t arena_bytes = 0;            // of the one given
  Staging* staging = nullptr;      // executables that share an arena may share it; none: memory of its own
  const States* states = nullptr;  // of a graph that has some; outlives the executable
  // Record at the first run and replay from then on, where the device records. For executables that run
  // again.
  bool record = false;
  RunCounts* counts = nullptr;  // added to; outlives the executable
};

// A graph lowered, planned and bound to memory. Not thread-safe; run() allocates nothing of ours, but for
// what the recording takes that the first one makes.
class Executable {
 public:
  // Throws Error(out_of_memory) when the plan needs more than options.arena_bytes, before anything is bound,
  // and Error(invalid_argument) for a state that is missing or has another shape.
  Executable(const Graph& graph, std::span<const std::string> keep, const Weights& weights, Device& device,
             const ExecutableOptions& options = {});
  ~Executable();
  Executable(const Executable&) = delete;
  Executable& operator=(const Executable&) = delete;

  const Graph& graph() const { return graph_; }  // as lowered
  const Plan& plan() const { return plan_; }
  TensorView view(std::string_view name) const;  // device memory; throws Error(invalid_argument)
  // Host memory to write an input's value to, before each run: all of it goes to the device in one copy when
  // the run starts. Throws Error(invalid_argument) if `name` is no input.
  void* input(std::string_view name);
  void set(std::string_view name, const void* host,
           std::size_t bytes);  // the same by a copy of the whole value
  // Copies `bytes` of a value, `offset` bytes behind its start, as the last run left it. What the graph keeps
  // is on the host already, unless it is large.
  void get(std::string_view name, void* host, std::size_t bytes, std::size_t offset = 0) const;
  // Fills `times` (cleared first) with one entry per node when given, waiting for the device after each, and
  // then replays nothing. Guarded: throws Error(device) naming the layer that wrote outside its output. What
  // a failing run had recorded is dropped: the next one records anew.
  void run(std::vector<NodeTime>* times = nullptr);
  // The time of every node among `repeats` of its kind, one behind the other without waiting between them: what it takes
  // in a run that is one recording. Where the device records, the repeats are a recording of their own. Reads the
  // inputs as the last run was given them.
  void run_repeated(int repeats, std::vector<NodeTime>& times);
  // Runs and calls `seen` with every node and its outputs (on the device) once it has run; stops when `seen`
  // returns false.
  void run_watched(const std::function<bool(const Node&, std::span<const TensorView>)>& seen);
  bool recorded() const { return recording_ != nullptr; }
  const std::string& implementation(std::size_t node) const { return steps_[node].prepared.implementation; }
  const std::vector<std::shared_ptr<const void>>& packed() const {
    return packed_;
  }  // the weights that it uses

 private:
  struct Step {
    Prepared prepared;
    std::vector<TensorView> in, out;
    void* workspace = nullptr;
    // Inputs that are states and that the kernel wants packed: packed anew before each run, behind the
    // workspace.
    struct Repack {
      const WeightPacking* packing;
      TensorView published;
      std::size_t at;  // in bytes from the workspace
    };
    std::vector<Repack> repack;
  };
  struct Guarded;
  void prepare(const Weights& weights, const States* states);
  void bind();
  void run_node(std::size_t n, void* stream);
  ValueId id_of(std::string_view name) const;
  const std::byte* staged(ValueId id) const;
  void send_inputs();
  template <class F>
  void waiting_on_error(F&& f);
  void run_steps(std::vector<NodeTime>* times);
  void fetch_outputs();
  void queue_run(std::vector<NodeTime>* times);
  bool can_be_recorded() const;

  Graph graph_;
  Plan plan_;
  Device& device_;
  std::vector<Step> steps_;
  std::vector<std::size_t> workspace_bytes_;         // by node
  std::vector<TensorView> views_;                    // by ValueId of graph_
  std::vector<std::shared_ptr<const void>> packed_;  // keeps packed weights alive
  std::shared_ptr<void> arena_;
  std::unique_ptr<Guarded> guarded_;
  std::shared_ptr<std::byte> staging_;    // the plan's inputs, then its outputs; null on the host
  bool fetches_ = false;                  // a run brings the outputs to the host
  bool records_ = false;                  // runs but the first are replays
  RunCounts* counts_;                     // may be null
  std::unique_ptr<Recording> recording_;  // behind all whose addresses it holds, so that it goes first
};

using PlanKey = std::array<std::int64_t, 8>;  // whatever tells two graphs of one session apart

struct SessionOptions {
  std::size_t arena_bytes = 0;    // reserved once; plans that need more are refused
  std::size_t cached_plans = 16;  // at least 1; least recently used ones are dropped
  // Weights that the session keeps on the device from the start.
  std::vector<std::shared_ptr<const void>> packed = {};
  const States* states = nullptr;  // of graphs that have some; outlives the session
};

// A session since it was made, of its cached executables: one that somebody made apart, for a single run, is
// not among them, but its allocations and waits are.
struct SessionStats {
  std::size_t plans = 0, graphs = 0;  // cached now; graphs: those with a recording
  RunCounts runs;
  std::int64_t evictions = 0;           // executables that left the cache, with their recordings
  std::size_t arena_bytes = 0;          // reserved
  std::size_t staging_bytes = 0;        // page-locked, without pixel_bytes
  std::size_t pixel_bytes = 0;          // of a detector on a GPU: its room for originals, page-locked as well
  std::size_t packed_weight_bytes = 0;  // of the model, on all devices and in all layouts
  std::int64_t allocations_since_plan =
      0;                              // since the newest executable was made: of a session that is warm, none
  std::int64_t synchronizations = 0;  // waits for the device
};

// One arena on one device, and the executables that share it. Running one overwrites the values of the
// others; none of them moves, the arena least of all. For one thread at a time: whoever uses a session from
// several holds mutex() from executable() to the last get().
class Session {
 public:
  Session(std::shared_ptr<const Weights> weights, std::shared_ptr<Device> device, SessionOptions options);

  // The executable cached under `key`, or a new one made of build().
  Executable& executable(const PlanKey& key, const std::function<Graph()>& build);

  const Weights& weights() const { return *weights_; }
  Device& device() const { return *device_; }
  std::mutex& mutex() { return mutex_; }
  // Asked for last; null before the first one.
  Executable* latest() const { return cache_.empty() ? nullptr : cache_.front().second.get(); }
  std::size_t arena_bytes() const { return options_.arena_bytes; }
  SessionStats stats() const;

 private:
  std::shared_ptr<const Weights> weights_;
  std::shared_ptr<Device> device_;
  SessionOptions options_;
  std::shared_ptr<void> arena_;
  Staging staging_;
  std::mutex mutex_;
  RunCounts runs_;
  std::int64_t evictions_ = 0, allocations_at_plan_ = 0;
  std::list<std::pair<PlanKey, std::unique_ptr<Executable>>> cache_;  // most recently used first
};

}  // namespace frcnn
