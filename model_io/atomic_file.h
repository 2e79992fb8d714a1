// Files that appear whole or not at all.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace frcnn {

using Append = std::function<void(const void* data, std::size_t bytes)>;

// Calls write(append) with a function that appends bytes to a temporary file in the folder of `path`; then
// syncs the file, renames it to `path` and syncs the folder. When anything fails before the rename, the
// temporary is removed and `path` is as before: the system's refusals (a full disk, a missing folder) become
// Error(io) that names `path` and the reason; an exception of write passes through as it is. A link to an
// existing file stays a link, its target is replaced. A device or pipe (/dev/null, /dev/stdout) cannot be
// replaced by renaming: it is written to directly. Safe to call from several threads and processes, the last
// one wins.
void write_atomically(const std::string& path, const std::function<void(const Append& append)>& write);

void write_atomically(const std::string& path, std::string_view text);

// Throws the Error(io) that write_atomically(path) would begin with, and leaves everything as it is: for what is
// computed for long before it is written. The disk may still be full then.
void check_writable(const std::string& path);

// Throws Error(invalid_argument) where writing `written` would replace the file `read`, under whatever name.
void keep_apart(const std::string& read, const std::string& written);

// Removes the temporary files that processes which were killed have left in a folder. Only for a folder that
// no other process writes to just now.
void remove_temporaries(const std::string& folder);

}  // namespace frcnn
