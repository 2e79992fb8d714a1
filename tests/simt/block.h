// What the engine knows of one block: its threads, warps, barrier, shared memory. Not for kernels.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/simt/engine.h"
#include "tests/simt/fiber.h"

namespace frcnn::simt {

// The copies a thread has issued with cp.async and not yet waited for.
class AsyncCopies {
 public:
  void issue(void* shared, const void* global, int bytes, int source_bytes);
  void commit();
  void wait(int groups_in_flight);
  void clear();

 private:
  struct Copy {
    void* shared;
    const void* global;
    int bytes, source_bytes;
  };
  std::vector<Copy> copies_;
  std::vector<std::size_t> group_end_;  // of each committed group, in copies_
};

// The dynamic shared memory of one block: NaN before the kernel writes it, poisoned where it was not carved.
class SharedArena {
 public:
  ~SharedArena();
  void start(std::size_t bytes);
  void* carve(std::size_t& launch_offset, std::size_t& offset, std::size_t bytes, std::size_t alignment);
  // Where a byte between the carved pieces has been written, in words; empty if none was. Poisons everything.
  std::string finish();

 private:
  struct Piece {
    std::size_t begin, end;
  };
  unsigned char* memory_ = nullptr;
  std::size_t bytes_ = 0, capacity_ = 0;
  std::vector<Piece> pieces_;
};

enum class State : std::uint8_t { ready, barrier, collective, converging, returned };

struct Block;

struct Thread {
  Position position;
  Block* block = nullptr;
  unsigned linear = 0;
  State state = State::ready;
  bool started = false;
  bool spun = false;  // left the last time only to let others run
  Site site;          // of what it waits for
  const char* operation = "";
  unsigned mask = 0;  // of the collective, and the answer of __activemask
  AsyncCopies copies;
  Fiber* fiber = nullptr;
};

// One meeting point per mask; it is reused, and its two tokens alternate, so that a lane that runs ahead to
// the next __syncwarp does not order itself before one that has not left this one.
struct Meeting {
  unsigned mask = 0, arrived = 0, generation = 0;
  const char* operation = "";
  Site site;
  Lanes lanes{};
  char token[2] = {};
};

struct Block {
  uint3 index{};
  std::vector<Thread> threads;
  std::vector<std::vector<std::unique_ptr<Meeting>>> warps;
  SharedArena shared;
  unsigned arrived = 0, returned = 0, generation = 0;
  int nonzero = 0;
  Votes votes{};  // of the last complete barrier
  Site barrier_site;
  char token[2] = {};  // of the barrier, alternating like a meeting's
};

// Who runs now; and the way back to the scheduler, to be resumed when the state is `ready` again. When the
// launch has failed meanwhile, leave() does not return but unwinds the thread.
extern Block* current_block;
extern Thread* current;
void leave();

// The lanes that a warp of the block has: fewer than 32 in the last warp of an odd block.
unsigned existing_lanes(const Block& block, unsigned warp);

// "returned: thread 5; waiting at __syncthreads (gemm.cu:41): threads 0-4, 6-127".
std::string who_waits(const Block& block);
std::string ranges(const std::vector<unsigned>& sorted);  // "0-4, 6-127"
std::string lane_ranges(unsigned mask);
std::string to_string(const uint3& index);  // "(1, 0, 0)"

}  // namespace frcnn::simt
