// What a run tells about itself in files: log.jsonl (one JSON object per line, everything), loss.csv,
// map.csv, and the plots loss.svg and map.svg.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "training/train_network.h"
#include "training/voc_eval.h"

namespace frcnn {

struct UpdateRecord {
  std::int64_t step = 0;  // updates made, this one included
  double epoch = 0;       // passes over the images made
  double learning_rate = 0;
  TrainLosses losses;  // means over the update's images
  double gradient_norm = 0;
  double seconds = 0;                // of this update, waiting for images included
  std::vector<std::string> images;   // names
  std::vector<std::string> skipped;  // messages of broken images
};

struct EvaluationRecord {
  std::int64_t step = 0;
  std::string set, metric;  // what was scored, and how
  std::optional<double> map, map_rounded;
  std::vector<VocClassScore> classes;
  double seconds = 0;
};

// Not thread-safe. Every record is in the files when the call returns; all calls throw Error(io) naming the
// file.
class RunLog {
 public:
  // Continues the files in `directory` after update `step`: records of later updates, which a run that was
  // killed may have left, are dropped. 0 starts anew. A log that is there and cannot be read is an error, not
  // replaced.
  RunLog(const std::string& directory, std::int64_t step);
  ~RunLog();

  void add(const UpdateRecord& record);
  void add(const EvaluationRecord& record);
  void sync() const;  // what was added is on the disk when it returns
  void plot() const;

  const std::vector<EvaluationRecord>& evaluations() const { return evaluations_; }

 private:
  struct Point {
    std::int64_t step;
    TrainLosses losses;
  };
  void keep_until(std::int64_t step);
  [[noreturn]] void fail_to_read() const;
  void remember(const UpdateRecord& record);
  std::string path(const char* name) const { return directory_ + "/" + name; }

  std::string directory_;
  std::vector<Point> updates_;
  std::vector<EvaluationRecord> evaluations_;
  class File;
  std::unique_ptr<File> json_, losses_, maps_;
};

}  // namespace frcnn
