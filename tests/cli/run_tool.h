// Runs the built `frcnn` as a user would: arguments in, exit code and both streams out.
#pragma once

#include <fcntl.h>
#include <pty.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

extern char** environ;

namespace frcnn::tool {

// A directory of its own, gone with the object.
class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "frcnn_test_XXXXXX").string();
    if (!mkdtemp(pattern.data())) throw std::runtime_error("cannot make a temporary directory");
    path_ = pattern;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

inline void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  out.close();
  if (!out) throw std::runtime_error("cannot write " + path);
}

struct Result {
  int code = -1;  // 128 + signal when killed by one
  std::string out, err;
  std::string note;  // the line in which --device auto says why it takes the CPU, taken out of err
};

struct Options {
  std::string stdout_to = {};  // a file such as /dev/full in place of what Result::out holds
  std::string directory = {};  // to run in; empty: this process's
  bool stderr_is_terminal = false;
  long file_size_limit = 0;  // bytes, multiples of 512; longer files fail like a full disk's
};

namespace detail {

// Whatever a terminal's program wrote; reading ends with EIO once the program is gone.
inline std::string drain(int fd) {
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<std::size_t>(n));
  return text;
}

// Without a GPU every command that computes says so; what else is on standard error is the tests' matter.
inline void take_note(Result& result) {
  const std::string start = "frcnn: note: --device auto takes the CPU: ";
  std::size_t at = result.err.find(start);
  while (at != std::string::npos && at > 0 && result.err[at - 1] != '\n') at = result.err.find(start, at + 1);
  if (at == std::string::npos) return;
  const std::size_t end = std::min(result.err.find('\n', at), result.err.size() - 1) + 1;
  result.note = result.err.substr(at, end - at);
  result.err.erase(at, end - at);
}

}  // namespace detail

inline Result run(const std::vector<std::string>& arguments, const Options& options = {}) {
  const TempDir streams;
  std::vector<std::string> line{FRCNN_TOOL};
  if (options.file_size_limit > 0) {  // the signal is ignored, so that writing fails with EFBIG
    const std::string limit = std::to_string(options.file_size_limit / 512);
    line = {"/bin/sh", "-c", "trap '' XFSZ; ulimit -f " + limit + "; exec \"$@\"", "sh", FRCNN_TOOL};
  }
  if (!options.directory.empty())
    line = {"/bin/sh", "-c", "cd \"$0\" && exec \"$@\"", options.directory, FRCNN_TOOL};
  line.insert(line.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : line) argv.push_back(word.data());
  argv.push_back(nullptr);

  int terminal = -1, terminal_end = -1;
  if (options.stderr_is_terminal && openpty(&terminal, &terminal_end, nullptr, nullptr, nullptr) != 0) {
    throw std::runtime_error("cannot make a terminal");
  }
  const std::string out = options.stdout_to.empty() ? streams / "out" : options.stdout_to,
                    err = streams / "err";
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, out.c_str(), O_WRONLY | O_CREAT, 0600);
  if (terminal_end >= 0) {
    posix_spawn_file_actions_adddup2(&actions, terminal_end, 2);
    posix_spawn_file_actions_addclose(&actions, terminal);
  } else {
    posix_spawn_file_actions_addopen(&actions, 2, err.c_str(), O_WRONLY | O_CREAT, 0600);
  }
  pid_t pid = 0;
  const int failed = posix_spawn(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) throw std::runtime_error("cannot start " + line[0]);

  Result result;
  if (terminal_end >= 0) {
    close(terminal_end);
    result.err = detail::drain(terminal);
    close(terminal);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  if (options.stdout_to.empty()) result.out = read_file(out);
  if (terminal_end < 0) result.err = read_file(err);
  detail::take_note(result);
  return result;
}

}  // namespace frcnn::tool
