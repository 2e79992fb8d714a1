#include "progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace frcnn {
namespace {

std::size_t terminal_columns() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

}  // namespace

std::string progress_line(std::size_t done, std::size_t total, double seconds, const std::string& what,
                          std::size_t columns) {
  constexpr std::size_t width = 24;
  const std::size_t filled = total == 0 ? width : std::min(width, done * width / total);
  std::string line = "[" + std::string(filled, '#') + std::string(width - filled, '-') + "]";
  line += fmt::format(" {}/{}", done, total);
  if (done > 0 && done < total) {
    const auto left =
        static_cast<long>(seconds / static_cast<double>(done) * static_cast<double>(total - done) + 0.5);
    line += fmt::format("  {}:{:02d} left", left / 60, left % 60);
  }
  line += "  " + what;
  if (line.size() > columns) line.resize(columns);
  return line;
}

Progress::Progress(std::size_t total)
    : total_(total),
      enabled_(total >= worth_showing && isatty(STDERR_FILENO) == 1),
      start_(std::chrono::steady_clock::now()) {}

void Progress::show(std::size_t done, const std::string& what) {
  if (!enabled_) return;
  const auto now = std::chrono::steady_clock::now();
  if (visible_ && now - last_ < std::chrono::milliseconds(100)) return;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const std::string line = progress_line(done, total_, seconds, what, terminal_columns() - 1);
  std::fprintf(stderr, "\r\033[K%s", line.c_str());
  std::fflush(stderr);
  visible_ = true;
  last_ = now;
}

void Progress::clear() {
  if (!visible_) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
  visible_ = false;
}

}  // namespace frcnn
