#include "model_io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "frcnn/error.h"

namespace frcnn {

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
  const auto fail = [&](const char* what, int error) {
    throw Error(ErrorCode::io, path + ": " + what + ": " + std::generic_category().message(error));
  };
  // O_NONBLOCK so that a pipe in place of a file is refused instead of waited for.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) fail("cannot open", errno);
  struct stat info {};
  const bool regular = ::fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  const std::size_t bytes = regular ? static_cast<std::size_t>(info.st_size) : 0;
  void* const base = bytes > 0 ? ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, fd, 0) : nullptr;
  const int error = errno;
  ::close(fd);  // the mapping keeps the file
  if (!regular) throw Error(ErrorCode::io, path + ": not a regular file");
  if (bytes == 0) throw Error(ErrorCode::bad_file, path + ": the file is empty");
  if (base == MAP_FAILED) fail("cannot map", error);
  return std::make_shared<const MappedFile>(base, bytes);
}

MappedFile::~MappedFile() { ::munmap(const_cast<void*>(data_), size_); }

}  // namespace frcnn
