// One line on the terminal that says how far a long job is.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>

namespace frcnn {

// Draws on stderr, and only when that is a terminal and the job has at least `worth_showing` steps; otherwise
// every call does nothing, so that logs and pipes stay clean. Not thread-safe.
class Progress {
 public:
  static constexpr std::size_t worth_showing = 4;

  explicit Progress(std::size_t total);
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void show(std::size_t done, const std::string& what);  // redraws, at most about ten times a second
  void clear();  // wipes the line, so that other output may be printed

 private:
  std::size_t total_;
  bool enabled_;
  bool visible_ = false;
  std::chrono::steady_clock::time_point start_, last_;
};

// The bar alone, without any control characters: "[####----]  3/6  0:04 left  name". `columns` bounds its
// length.
std::string progress_line(std::size_t done, std::size_t total, double seconds, const std::string& what,
                          std::size_t columns);

}  // namespace frcnn
