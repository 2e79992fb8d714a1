// What `frcnn train` shows while it works: a line that lives on the terminal, and lines that stay.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "training/run_log.h"

namespace frcnn {

// Running means over about the last hundred updates.
struct Smoothed {
  TrainLosses losses;
  double seconds = 0, images = 0;  // per update
  void add(const UpdateRecord& record);

 private:
  double weight_ = 0;  // sum of the weights so far: the first updates count fully
};

class TrainDisplay {
 public:
  // `first`: updates made before. The live line is drawn on stderr where that is a terminal; a line for every
  // `every` updates goes to stdout.
  TrainDisplay(std::int64_t first, std::int64_t iterations, std::int64_t every);
  ~TrainDisplay() { clear(); }
  TrainDisplay(const TrainDisplay&) = delete;
  TrainDisplay& operator=(const TrainDisplay&) = delete;

  void updated(const UpdateRecord& record);
  void evaluating(std::size_t done, std::size_t total);
  void say(const std::string& line);      // to stdout, above the live line
  void warn(const std::string& message);  // to stderr
  void clear();

 private:
  void live(const std::string& line);
  std::int64_t iterations_, every_, step_;
  Smoothed smoothed_;
  bool terminal_, visible_ = false;
  std::chrono::steady_clock::time_point drawn_;
};

std::string duration_text(double seconds);  // "1:02:03", "4:05"

// Everything of one update's line but the progress bar.
std::string update_text(const Smoothed& smoothed, const UpdateRecord& record, std::int64_t iterations);

}  // namespace frcnn
