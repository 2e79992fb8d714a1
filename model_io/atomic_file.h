// Files that appear whole or not at all.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

namespace frcnn {

// Calls write(append) with a function that appends bytes to a temporary file beside `path`; then syncs and renames it.
// When anything fails (a full disk, an exception in write) the temporary is removed, `path` is as before, and
// Error(io) names it.
void write_atomically(const std::string& path,
                      const std::function<void(const std::function<void(const void*, std::size_t)>&)>& write);

}  // namespace frcnn
