// Host memory between programs and a device.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "runtime/device.h"

namespace frcnn {

// What inputs and results of executables pass through on their way to and from a device, for executables that
// run one at a time. Blocks never move, since copies that are queued or recorded hold their addresses: who
// needs more than there is gets a larger one, and the others keep theirs. For one thread at a time; blocks
// may outlive it.
class Staging {
 public:
  explicit Staging(Device& device) : device_(device) {}
  // Shared with all who asked before, if it is large enough. Throws Error(out_of_memory) and stays as it was.
  std::shared_ptr<std::byte> block(std::size_t bytes);
  std::size_t bytes() const;  // of all blocks that somebody holds, and of the newest

 private:
  struct Block {
    std::weak_ptr<std::byte> memory;
    std::size_t bytes;
  };
  Device& device_;
  std::shared_ptr<std::byte> newest_;
  std::vector<Block> blocks_;  // the newest last
};

}  // namespace frcnn
