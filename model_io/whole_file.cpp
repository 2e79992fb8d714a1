#include "model_io/whole_file.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>

#include "frcnn/error.h"

namespace frcnn {

std::string read_whole_file(const std::string& path, std::size_t max_bytes) {
  // A directory opens like a file and fails only when read, with a message that helps nobody.
  std::error_code status_error;
  if (std::filesystem::is_directory(path, status_error)) {
    throw Error(ErrorCode::io, fmt::format("{}: is a directory, not a file", path));
  }
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), &std::fclose);
  if (!file) throw Error(ErrorCode::io, fmt::format("{}: cannot open: {}", path, std::strerror(errno)));
  // Read in growing pieces instead of trusting a size: pipes have none, and a file may change while it is read.
  std::string bytes;
  std::size_t piece = std::size_t{1} << 16;
  for (;;) {
    const std::size_t used = bytes.size();
    bytes.resize(used + piece);
    const std::size_t got = std::fread(bytes.data() + used, 1, piece, file.get());
    bytes.resize(used + got);
    if (bytes.size() > max_bytes) {
      throw Error(ErrorCode::bad_file, fmt::format("{}: larger than the limit of {} bytes", path, max_bytes));
    }
    if (got < piece) break;
    piece = std::min<std::size_t>(piece * 2, std::size_t{1} << 24);
  }
  if (std::ferror(file.get())) throw Error(ErrorCode::io, fmt::format("{}: cannot read: {}", path, std::strerror(errno)));
  if (bytes.empty()) throw Error(ErrorCode::bad_file, fmt::format("{}: the file is empty", path));
  return bytes;
}

}  // namespace frcnn
