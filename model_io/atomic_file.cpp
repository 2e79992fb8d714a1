#include "model_io/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "frcnn/error.h"

namespace frcnn {
namespace {

constexpr const char* temporary_prefix = ".frcnn-";
constexpr const char* temporary_suffix = ".tmp";

[[noreturn]] void fail(const std::string& path, const std::string& what, int error) {
  throw Error(ErrorCode::io, path + ": " + what + ": " + std::generic_category().message(error));
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int close() {
    return ::close(std::exchange(fd_, -1));
  }  // some file systems report a failed write only here

 private:
  int fd_;
};

// Where a file called `path` goes: the file it replaces (of a link, what the link stands for) and its folder.
struct Place {
  bool replaced = true;  // false: a device or pipe, which is written to
  std::string target, folder;
};

Place place_of(const std::string& path) {
  Place place{true, path, {}};
  struct stat info {};
  if (::stat(path.c_str(), &info) == 0) {
    if (S_ISDIR(info.st_mode)) fail(path, "cannot write", EISDIR);
    if (!S_ISREG(info.st_mode)) place.replaced = false;
    std::error_code ignored;
    if (place.replaced && std::filesystem::is_symlink(path, ignored)) {
      const auto real = std::filesystem::canonical(path, ignored);
      if (!ignored) place.target = real.string();
    }
  }
  const std::size_t slash = place.target.rfind('/');
  place.folder = slash == std::string::npos ? "." : slash == 0 ? "/" : place.target.substr(0, slash);
  return place;
}

void write_all(int fd, const void* data, std::size_t bytes, const std::string& path) {
  const auto* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t done = ::write(fd, at, std::min<std::size_t>(bytes, std::size_t{1} << 30));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail(path, "cannot write", errno);
    at += done;
    bytes -= static_cast<std::size_t>(done);
  }
}

// Creates a file that no other thread or process can have: O_EXCL decides, the number only avoids collisions.
int create_temporary(const std::string& folder, std::string& name, const std::string& path) {
  for (int number = 0;; ++number) {
    name = folder + "/" + temporary_prefix + std::to_string(::getpid()) + "-" + std::to_string(number) +
           temporary_suffix;
    const int fd = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0) return fd;
    if (errno != EEXIST) fail(path, "cannot create a file in its folder", errno);
  }
}

void write_directly(const std::string& path, const std::function<void(const Append&)>& write) {
  Descriptor file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (file.get() < 0) fail(path, "cannot open for writing", errno);
  write([&](const void* data, std::size_t bytes) { write_all(file.get(), data, bytes, path); });
  if (file.close() != 0) fail(path, "cannot write", errno);
}

void sync_folder(const std::string& folder, const std::string& path) {
  Descriptor directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() < 0) return;  // a folder that may be written but not read
  if (::fsync(directory.get()) != 0 && errno != EINVAL && errno != ENOTSUP && errno != EROFS)
    fail(path, "written, but its folder cannot be synced", errno);
}

}  // namespace

void write_atomically(const std::string& path, const std::function<void(const Append&)>& write) {
  const Place place = place_of(path);
  if (!place.replaced) return write_directly(path, write);
  std::string temporary;
  Descriptor file(create_temporary(place.folder, temporary, path));
  try {
    write([&](const void* data, std::size_t bytes) { write_all(file.get(), data, bytes, path); });
    if (::fsync(file.get()) != 0) fail(path, "cannot write", errno);
    if (file.close() != 0) fail(path, "cannot write", errno);
    if (::rename(temporary.c_str(), place.target.c_str()) != 0)
      fail(path, "cannot rename the finished file", errno);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  sync_folder(place.folder, path);
}

void write_atomically(const std::string& path, std::string_view text) {
  write_atomically(path, [&](const Append& append) { append(text.data(), text.size()); });
}

void check_writable(const std::string& path) {
  const Place place = place_of(path);
  if (!place.replaced) {  // a pipe may wait for its reader when it is opened
    if (::access(path.c_str(), W_OK) != 0) fail(path, "cannot open for writing", errno);
    return;
  }
  std::string temporary;
  const Descriptor file(create_temporary(place.folder, temporary, path));
  ::unlink(temporary.c_str());
}

void keep_apart(const std::string& read, const std::string& written) {
  std::error_code none;  // what is not there is nobody's
  if (std::filesystem::equivalent(read, written, none))
    throw Error(ErrorCode::invalid_argument, written + ": is read here; name another file to write");
}

void remove_temporaries(const std::string& folder) {
  std::error_code ignored;
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(temporary_prefix) && name.ends_with(temporary_suffix)) found.push_back(entry.path());
  }
  for (const auto& path : found) std::filesystem::remove(path, ignored);
}

}  // namespace frcnn
