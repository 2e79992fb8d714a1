// The emulator's engine: runs a grid of CUDA threads as fibers on one OS thread, and knows who waits for
// what.
//
// A fiber runs until it meets a barrier, a warp collective or a spin-wait, or returns. Between those points
// nothing is interleaved; what another interleaving would show is shown by the thread orders and by
// ThreadSanitizer. Every breach of the rules ends the launch with frcnn::Error(device), which names kernel,
// block and threads; the threads still waiting are then unwound.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "tests/simt/sanitizers.h"
#include "tests/simt/vector_types.h"

namespace frcnn::simt {

// --- for tests

enum class Order : std::uint8_t { forward, reverse, random };

struct Schedule {
  Order order = Order::forward;  // of the blocks, and of the threads in every round
  std::uint64_t seed = 0;        // for random
};

// What every kernel is run in; `random` needs two seeds to be worth the name.
inline constexpr Schedule kSchedules[] = {
    {Order::forward, 0}, {Order::reverse, 0}, {Order::random, 1}, {Order::random, 2}};

struct Settings {
  Schedule schedule;
  int blocks_alive = 1;  // 0: all blocks of the grid at once, as a cooperative launch is always run
  std::size_t shared_limit = 227 * 1024;  // bytes a block may ask for; compute capability 9.0 has 227 KB
};

// For all launches of the process that start later. Launches of several OS threads run one after the other.
Settings settings();
void set_settings(const Settings& settings);

class ScopedSettings {
 public:
  explicit ScopedSettings(const Settings& during) : before_(settings()) { set_settings(during); }
  ~ScopedSettings() { set_settings(before_); }
  ScopedSettings(const ScopedSettings&) = delete;
  ScopedSettings& operator=(const ScopedSettings&) = delete;

 private:
  Settings before_;
};

// Demangled name -> how often it was launched in this process.
std::map<std::string, int> launched_kernels();
std::string kernel_name(const void* kernel);

// --- for launch.h

struct Launch {
  const void* kernel;
  dim3 grid, block;
  std::size_t shared_bytes;
  bool cooperative;
  const std::function<void()>* body;  // calls the kernel for the current thread
};
void run(const Launch& launch);

// --- for the emulated device functions, called inside a kernel

// Where a device function was called; the default argument of every collective.
struct Site {
  const char* file = nullptr;
  int line = 0;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};
bool operator==(const Site& a, const Site& b);
std::string to_string(const Site& site);  // "gemm.cu:41"

struct Position {
  uint3 thread, block;
  uint3 block_dim, grid_dim;
  unsigned lane;
};
extern const Position* current_position;

FRCNN_SIMT_UNCHECKED inline uint3 thread_index() { return current_position->thread; }
FRCNN_SIMT_UNCHECKED inline uint3 block_index() { return current_position->block; }
FRCNN_SIMT_UNCHECKED inline dim3 block_dim() { return current_position->block_dim; }
FRCNN_SIMT_UNCHECKED inline dim3 grid_dim() { return current_position->grid_dim; }
FRCNN_SIMT_UNCHECKED inline unsigned lane_index() { return current_position->lane; }

// Ends the launch: the message gets kernel, block and thread in front.
[[noreturn]] void fail(const std::string& message);

// Waits for every thread of the block. `vote` is counted over the block, for __syncthreads_count and its
// relatives.
struct Votes {
  int nonzero, threads;
};
Votes barrier(int vote, Site site);

// What the lanes of one collective brought, by lane; null for a lane that does not take part.
struct Lanes {
  void* argument[32];
  template <class T>
  T& of(unsigned lane) const {
    return *static_cast<T*>(argument[lane]);
  }
  bool has(unsigned lane) const { return argument[lane] != nullptr; }
};
// Waits for every lane in `mask`; the last to come calls `combine`, which leaves each lane's result in its
// argument. The name of the operation, the mask and the site must agree. Lanes that the block does not have
// are left out, unless the whole warp is needed (`aligned`, as PTX calls it); a lane of the mask that has
// returned is an error.
enum class Participation : std::uint8_t { masked, aligned };
void collective(unsigned mask, const char* operation, Participation participation, Site site, void* argument,
                void (*combine)(const Lanes& lanes));

void order_warp(unsigned mask, Site site);  // __syncwarp: a collective that also orders memory
unsigned converged_lanes(Site site);        // __activemask
void spin(Site site);                       // one turn of a spin-wait: lets the others run
void note_static_shared(Site site);         // a kernel passes a __shared__ declaration

// Dynamic shared memory of the block. `launch_offset` and `offset` are the carver's two cursors: where the
// piece would start on a GPU, and where it starts here, behind a gap.
void* carve(std::size_t& launch_offset, std::size_t& offset, std::size_t bytes, std::size_t alignment);

// Asynchronous copies of the current thread. The destination holds NaN from the issue to the wait.
void async_copy(void* shared, const void* global, int bytes, int source_bytes);
void async_commit();
void async_wait(int groups_in_flight);  // -1: for everything, committed or not

}  // namespace frcnn::simt
