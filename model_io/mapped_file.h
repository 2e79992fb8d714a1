// A regular file mapped for reading.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace frcnn {

// A file that somebody shortens while it is mapped kills the reader with SIGBUS, as with any mapping. Safe to
// read from several threads.
class MappedFile {
 public:
  // Throws Error(io) for what cannot be opened or is no regular file (a pipe is refused, not waited for),
  // Error(bad_file) for an empty one.
  static std::shared_ptr<const MappedFile> open(const std::string& path);

  MappedFile(const void* data, std::size_t size) : data_(data), size_(size) {}  // takes the mapping over
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }

 private:
  const void* data_;
  std::size_t size_;
};

}  // namespace frcnn
