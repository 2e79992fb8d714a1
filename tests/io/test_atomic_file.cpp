#include <sys/resource.h>
#include <sys/stat.h>

#include <atomic>
#include <csignal>
#include <thread>
#include <vector>

#include "model_io/atomic_file.h"
#include "scratch.h"

namespace frcnn {
namespace {

void write_text(const std::string& path, const std::string& text) {
  write_atomically(path, [&](const Append& append) { append(text.data(), text.size()); });
}

// Files of this process end at `bytes` while it lives; what goes beyond fails as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    rlimit limit = old_;
    limit.rlim_cur = bytes;
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) throw std::runtime_error("setrlimit");
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit old_{};
  void (*handler_)(int);
};

}  // namespace

TEST_CASE("atomic file: what was appended is there, and nothing else") {
  scratch::Folder folder;
  write_atomically(folder / "a", [](const Append& append) {
    append("one ", 4);
    append("", 0);
    append("two", 3);
  });
  CHECK(scratch::read(folder / "a") == "one two");
  write_text(folder / "a", "new");
  CHECK(scratch::read(folder / "a") == "new");
  write_text(folder / "empty", "");
  CHECK(scratch::read(folder / "empty").empty());
  CHECK(folder.files() == 2);
  struct stat info {};
  REQUIRE(::stat((folder / "a").c_str(), &info) == 0);
  CHECK((info.st_mode & 0111) == 0);
  CHECK((info.st_mode & 0400) != 0);
}

TEST_CASE("atomic file: a disk that fills up leaves the old file and no temporary") {
  scratch::Folder folder;
  write_text(folder / "a", "old");
  {
    FileSizeLimit limit(4096);
    scratch::check_error([&] { write_text(folder / "a", std::string(10000, 'x')); }, ErrorCode::io,
                         {folder / "a", "cannot write", std::strerror(EFBIG)});
    scratch::check_error([&] { write_text(folder / "b", std::string(10000, 'x')); }, ErrorCode::io, {folder / "b"});
  }
  CHECK(scratch::read(folder / "a") == "old");
  CHECK(folder.files() == 1);
}

TEST_CASE("atomic file: a full device is an error that says so") {
  if (!std::filesystem::exists("/dev/full")) {
    WARN("SKIPPED: this machine has no /dev/full");
    return;
  }
  scratch::check_error([] { write_text("/dev/full", "x"); }, ErrorCode::io, {"/dev/full", std::strerror(ENOSPC)});
  CHECK(std::filesystem::is_character_file("/dev/full"));
}

TEST_CASE("atomic file: folders that are missing, files or forbidden") {
  scratch::Folder folder;
  write_text(folder / "file", "x");
  scratch::check_error([&] { write_text(folder / "file/below", "y"); }, ErrorCode::io,
                       {folder / "file/below", std::strerror(ENOTDIR)});
  scratch::check_error([&] { write_text(folder / "no/such", "y"); }, ErrorCode::io,
                       {folder / "no/such", std::strerror(ENOENT)});
  scratch::check_error([&] { write_text(folder.path(), "y"); }, ErrorCode::io, {folder.path(), std::strerror(EISDIR)});
  scratch::check_error([&] { write_text("", "y"); }, ErrorCode::io, {});
  CHECK(folder.files() == 1);
}

TEST_CASE("atomic file: whether a file can be written is told before, and changes nothing") {
  scratch::Folder folder;
  write_text(folder / "file", "old");
  std::filesystem::create_symlink(folder / "file", folder / "link");
  std::filesystem::create_symlink(folder / "no/where", folder / "dangling");
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);  // nobody reads it: opening it would wait
  for (const std::string name : {"file", "link", "dangling", "new", "pipe"}) check_writable(folder / name);
  check_writable("/dev/null");
  const auto refused = [&](const std::string& path, int why) {
    scratch::check_error([&] { check_writable(path); }, ErrorCode::io, {path, std::strerror(why)});
  };
  refused(folder / "file/below", ENOTDIR);
  refused(folder / "no/such", ENOENT);
  refused(folder.path(), EISDIR);
  CHECK(scratch::read(folder / "file") == "old");
  CHECK(folder.files() == 4);
}

TEST_CASE("atomic file: an exception in the middle passes through and leaves nothing") {
  scratch::Folder folder;
  write_text(folder / "a", "old");
  const auto interrupted = [&] {
    write_atomically(folder / "a", [](const Append& append) {
      append("half", 4);
      throw std::out_of_range("enough");
    });
  };
  CHECK_THROWS_AS(interrupted(), std::out_of_range);
  CHECK(scratch::read(folder / "a") == "old");
  CHECK(folder.files() == 1);
}

TEST_CASE("atomic file: a link stays a link, a device stays a device") {
  scratch::Folder folder;
  write_text(folder / "target", "old");
  std::filesystem::create_symlink(folder / "target", folder / "link");
  write_text(folder / "link", "new");
  CHECK(std::filesystem::is_symlink(folder / "link"));
  CHECK(scratch::read(folder / "target") == "new");
  write_text("/dev/null", "gone");
  CHECK(std::filesystem::is_character_file("/dev/null"));
}

TEST_CASE("atomic file: threads that write one path never mix") {
  scratch::Folder folder;
  std::atomic<int> torn{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 10; ++i) {
        write_text(folder / "a", std::string(5000, static_cast<char>('a' + t)));
        const std::string seen = scratch::read(folder / "a");
        if (seen.size() != 5000 || seen.find_first_not_of(seen[0]) != std::string::npos) ++torn;
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(torn == 0);
  CHECK(folder.files() == 1);
}

}  // namespace frcnn
