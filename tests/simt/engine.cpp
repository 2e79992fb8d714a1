#include "tests/simt/engine.h"

#include <algorithm>
#include <exception>
#include <memory>
#include <mutex>
#include <random>
#include <utility>
#include <vector>

#include "frcnn/error.h"
#include "tests/simt/block.h"
#include "tests/simt/fiber.h"

namespace frcnn::simt {

const Position* current_position = nullptr;
Block* current_block = nullptr;
Thread* current = nullptr;

namespace {

// ThreadSanitizer knows at most 8128 threads at a time, and each takes about 0.8 MB.
constexpr std::size_t kMostThreads = kRaceCheck ? 6144 : 16384;
// So many rounds in which every thread only polls are taken for a wait without end.
constexpr int kIdleRounds = 2000;

// Taken for the whole of a launch: `__shared__` variables are static, so two launches at a time cannot be.
std::mutex launch_mutex;

std::mutex settings_mutex;
Settings current_settings;
std::map<const void*, int> launches;  // under settings_mutex

// Fibers end only with their OS thread; a launch borrows them.
thread_local std::vector<std::unique_ptr<Fiber>> idle_fibers;

struct Run {
  explicit Run(const Launch& what)
      : launch(what), settings(simt::settings()), random(settings.schedule.seed) {}

  const Launch& launch;
  const Settings settings;
  std::vector<std::unique_ptr<Block>> blocks;  // those alive
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<std::uint32_t> block_order;
  std::size_t next_block = 0;
  std::vector<Thread*> turn;  // the order of one round
  std::mt19937_64 random;
  std::string failure;
  bool stopping = false;
  char launched = 0, finished = 0;  // tokens: host -> threads, threads -> host
};
Run* active = nullptr;

struct Stop {};  // unwinds a thread that has failed, or waits in a launch that has

std::string where(const Block& block) { return ", block " + to_string(block.index); }

std::string failure_at(const std::string& message) {
  return where(*current_block) + ", thread " + to_string(current->position.thread) + ": " + message;
}

// The life of a fiber: one CUDA thread after the other. Never unwound, never left.
void run_threads() {
  for (;;) {
    const std::function<void()>* body;
    {
      const Quiet quiet;
      body = active->launch.body;
      acquire(&active->launched);
    }
    try {
      (*body)();
    } catch (const Stop&) {
    } catch (const std::exception& e) {
      const Quiet quiet;
      active->failure = failure_at(std::string("the kernel threw: ") + e.what());
    }
    {
      const Quiet quiet;
      release(&active->finished);
      current->state = State::returned;
      ++current_block->returned;
    }
    current->fiber->leave();
  }
}

void start_block(Run& run, Block& block) {
  const dim3 grid = run.launch.grid, dim = run.launch.block;
  const std::uint32_t linear = run.block_order[run.next_block++];
  block.index = {linear % grid.x, linear / grid.x % grid.y, linear / grid.x / grid.y};
  const unsigned threads = dim.x * dim.y * dim.z;
  block.threads.resize(threads);
  block.warps.resize((threads + 31) / 32);
  for (auto& warp : block.warps) {
    if (warp.size() > 8) warp.clear();  // masks computed from data would pile up
  }
  block.arrived = block.returned = 0;
  block.shared.start(run.launch.shared_bytes);
  for (unsigned i = 0; i < threads; ++i) {
    Thread& thread = block.threads[i];
    thread.position = {{i % dim.x, i / dim.x % dim.y, i / dim.x / dim.y}, block.index, dim, grid, i % 32};
    thread.block = &block;
    thread.linear = i;
    thread.state = State::ready;
    thread.started = false;
    thread.copies.clear();
    if (thread.fiber) continue;
    if (idle_fibers.empty()) idle_fibers.push_back(std::make_unique<Fiber>(run_threads));
    run.fibers.push_back(std::move(idle_fibers.back()));
    idle_fibers.pop_back();
    thread.fiber = run.fibers.back().get();
  }
  release(&run.launched);
}

[[noreturn]] void throw_failure(const Run& run, const std::string& what) {
  throw Error(ErrorCode::device, "kernel " + kernel_name(run.launch.kernel) + what);
}

void finish_block(Run& run, Block& block) {
  acquire(&run.finished);
  const std::string overrun = block.shared.finish();
  if (!overrun.empty()) throw_failure(run, where(block) + ": " + overrun);
}

void order_turn(Run& run) {
  run.turn.clear();
  for (auto& block : run.blocks) {
    for (Thread& thread : block->threads) run.turn.push_back(&thread);
  }
  if (run.settings.schedule.order == Order::reverse) std::reverse(run.turn.begin(), run.turn.end());
}

void resume(Run& run, Thread& thread) {
  current_block = thread.block;
  current = &thread;
  current_position = &thread.position;
  thread.spun = false;
  thread.started = true;
  thread.fiber->enter();
  if (!run.failure.empty()) throw_failure(run, run.failure);
}

// Unwinds every thread that is in the middle of the kernel.
void stop_threads(Run& run) {
  run.stopping = true;
  for (auto& block : run.blocks) {
    for (Thread& thread : block->threads) {
      if (!thread.started || thread.state == State::returned) continue;
      current_block = block.get();
      current = &thread;
      thread.fiber->enter();
    }
  }
}

// Answers __activemask for those who asked, once nobody else can run: they are as converged as they can get.
bool answer_converging(Run& run) {
  bool any = false;
  for (auto& block : run.blocks) {
    for (Thread& thread : block->threads) {
      if (thread.state != State::converging) continue;
      any = true;
      const unsigned first = thread.linear / 32 * 32;
      const unsigned end = std::min(first + 32, static_cast<unsigned>(block->threads.size()));
      unsigned mask = 0;
      for (unsigned i = first; i < end; ++i) {
        if (block->threads[i].state == State::converging && block->threads[i].site == thread.site)
          mask |= 1u << (i - first);
      }
      for (unsigned lane = 0; lane < 32; ++lane) {
        if (!(mask >> lane & 1u)) continue;
        block->threads[first + lane].mask = mask;
        block->threads[first + lane].state = State::ready;
      }
    }
  }
  return any;
}

[[noreturn]] void report_deadlock(const Run& run, bool spinning) {
  std::string text = spinning ? ": a spin-wait that nobody ends" : ": deadlock";
  int shown = 0;
  for (const auto& block : run.blocks) {
    if (block->returned == block->threads.size() || shown++ == 4) continue;
    text += (shown > 1 ? "; block " : " in block ") + to_string(block->index) + ": " + who_waits(*block);
  }
  if (spinning && run.blocks.size() < run.block_order.size()) {
    text += "; blocks run one after the other here: what waits for another block needs a cooperative launch";
  }
  throw_failure(run, text);
}

// Retires finished blocks and puts the next ones in their places. False when the grid is done.
bool renew_blocks(Run& run) {
  bool changed = false, left = false;
  for (auto& block : run.blocks) {
    if (block->threads.empty() || block->returned < block->threads.size()) {
      left = left || !block->threads.empty();
      continue;
    }
    finish_block(run, *block);
    if (run.next_block < run.block_order.size()) {
      start_block(run, *block);
      left = true;
    } else {
      block->threads.clear();
    }
    changed = true;
  }
  if (changed) order_turn(run);
  return left;
}

void run_grid(Run& run) {
  for (auto& block : run.blocks) start_block(run, *block);
  order_turn(run);
  int idle_rounds = 0;
  for (;;) {
    if (run.settings.schedule.order == Order::random)
      std::shuffle(run.turn.begin(), run.turn.end(), run.random);
    bool progress = false, spinning = false;
    for (Thread* thread : run.turn) {
      if (thread->state != State::ready) continue;
      resume(run, *thread);
      progress = progress || !thread->spun;
      spinning = spinning || thread->spun;
    }
    if (!renew_blocks(run)) return;
    if (progress || answer_converging(run)) {
      idle_rounds = 0;
    } else if (!spinning || ++idle_rounds > kIdleRounds) {
      report_deadlock(run, spinning);
    }
  }
}

void validate(const Run& run) {
  const dim3 grid = run.launch.grid, block = run.launch.block;
  const std::string asked = ": grid " + to_string(grid) + ", block " + to_string(block);
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
    throw_failure(run, asked + ": a grid is 1 to 2147483647 by 65535 by 65535 blocks");
  }
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || block.x > 1024 || block.y > 1024 || block.z > 64 || threads > 1024) {
    throw_failure(run, asked + ": a block is 1 to 1024 threads, at most 1024 by 1024 by 64");
  }
  if (run.launch.shared_bytes > run.settings.shared_limit) {
    throw_failure(run, ": asks for " + std::to_string(run.launch.shared_bytes) +
                           " bytes of shared memory, a block has " +
                           std::to_string(run.settings.shared_limit));
  }
  const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  if (blocks > 0x10000000u) throw_failure(run, asked + ": too many blocks to emulate");
}

void prepare(Run& run) {
  const dim3 grid = run.launch.grid, block = run.launch.block;
  run.block_order.resize(std::size_t{grid.x} * grid.y * grid.z);
  for (std::size_t i = 0; i < run.block_order.size(); ++i) run.block_order[i] = static_cast<std::uint32_t>(i);
  if (run.settings.schedule.order == Order::reverse)
    std::reverse(run.block_order.begin(), run.block_order.end());
  if (run.settings.schedule.order == Order::random) {
    std::shuffle(run.block_order.begin(), run.block_order.end(), run.random);
  }
  std::size_t alive = static_cast<std::size_t>(std::max(run.settings.blocks_alive, 0));
  if (run.launch.cooperative || alive == 0) alive = run.block_order.size();
  alive = std::min(alive, run.block_order.size());
  const std::size_t threads = std::size_t{block.x} * block.y * block.z;
  if (alive * threads > kMostThreads) {
    throw_failure(run, ": " + std::to_string(alive) + " blocks of " + std::to_string(threads) +
                           " threads at once, the emulator runs at most " + std::to_string(kMostThreads) +
                           " threads");
  }
  for (std::size_t i = 0; i < alive; ++i) run.blocks.push_back(std::make_unique<Block>());
}

}  // namespace

Settings settings() {
  const std::lock_guard lock(settings_mutex);
  return current_settings;
}

void set_settings(const Settings& settings) {
  const std::lock_guard lock(settings_mutex);
  current_settings = settings;
}

std::map<std::string, int> launched_kernels() {
  const std::lock_guard lock(settings_mutex);
  std::map<std::string, int> named;
  for (const auto& [kernel, count] : launches) named[kernel_name(kernel)] += count;
  return named;
}

void run(const Launch& launch) {
  const std::lock_guard lock(launch_mutex);
  const Quiet quiet;
  Run run(launch);
  validate(run);
  prepare(run);
  {
    const std::lock_guard count(settings_mutex);
    ++launches[launch.kernel];
  }
  active = &run;
  std::exception_ptr failure;
  try {
    run_grid(run);
  } catch (...) {
    failure = std::current_exception();
    stop_threads(run);
    acquire(&run.finished);
  }
  active = nullptr;
  for (auto& fiber : run.fibers) idle_fibers.push_back(std::move(fiber));
  if (failure) std::rethrow_exception(failure);
}

void leave() {
  current->fiber->leave();
  if (active->stopping) throw Stop{};
}

void fail(const std::string& message) {
  const Quiet quiet;
  active->failure = failure_at(message);
  throw Stop{};
}

Votes barrier(int vote, Site site) {
  const Quiet quiet;
  Block& block = *current_block;
  if (block.arrived > 0 && !(block.barrier_site == site)) {
    fail("__syncthreads at " + to_string(site) + ", while " + who_waits(block));
  }
  if (block.arrived == 0) block.nonzero = 0;
  block.barrier_site = site;
  char* const token = &block.token[block.generation & 1u];
  release(token);
  block.nonzero += vote != 0;
  if (++block.arrived == block.threads.size()) {
    block.votes = {block.nonzero, static_cast<int>(block.threads.size())};
    block.arrived = 0;
    ++block.generation;
    for (Thread& thread : block.threads) {
      if (thread.state == State::barrier) thread.state = State::ready;
    }
  } else {
    current->state = State::barrier;
    current->site = site;
    current->operation = "__syncthreads";
    leave();
  }
  acquire(token);
  return block.votes;
}

unsigned converged_lanes(Site site) {
  const Quiet quiet;
  current->state = State::converging;
  current->site = site;
  current->operation = "__activemask";
  leave();
  return current->mask;
}

void spin(Site site) {
  const Quiet quiet;
  current->spun = true;
  current->site = site;
  current->operation = "a spin-wait";
  leave();
}

void note_static_shared(Site site) {
  const Quiet quiet;
  if (active->blocks.size() > 1) {
    fail("__shared__ variable at " + to_string(site) +
         " with several blocks alive: the emulator has one copy of it; carve dynamic shared memory");
  }
}

void* carve(std::size_t& launch_offset, std::size_t& offset, std::size_t bytes, std::size_t alignment) {
  const Quiet quiet;
  return current_block->shared.carve(launch_offset, offset, bytes, alignment);
}

void async_copy(void* shared, const void* global, int bytes, int source_bytes) {
  current->copies.issue(shared, global, bytes, source_bytes);
}
void async_commit() { current->copies.commit(); }
void async_wait(int groups_in_flight) { current->copies.wait(groups_in_flight); }

}  // namespace frcnn::simt
