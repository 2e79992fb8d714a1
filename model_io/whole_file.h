// Small files read whole, with errors that name them.
#pragma once

#include <cstddef>
#include <string>

namespace frcnn {

// The bytes of a regular file of at most max_bytes. Throws Error(io) for a missing or unreadable file or a directory,
// Error(bad_file) for an empty or too large one.
std::string read_whole_file(const std::string& path, std::size_t max_bytes);

}  // namespace frcnn
