#include "training/run_log.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>

#include "frcnn/error.h"
#include "model_io/atomic_file.h"
#include "training/plot_svg.h"

namespace frcnn {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t most_plot_points = 600;

Json or_null(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

std::optional<double> number(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_number() ? std::optional(found->get<double>()) : std::nullopt;
}

std::string text(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
}

Json to_json(const UpdateRecord& record) {
  Json json{{"step", record.step},
            {"epoch", record.epoch},
            {"lr", record.learning_rate},
            {"loss", record.losses.total()},
            {"rpn_cls", record.losses.rpn_cls},
            {"rpn_bbox", record.losses.rpn_bbox},
            {"cls", record.losses.cls},
            {"bbox", record.losses.bbox},
            {"grad_norm", record.gradient_norm},
            {"seconds", record.seconds},
            {"images", record.images}};
  if (!record.skipped.empty()) json["skipped"] = record.skipped;
  return json;
}

Json to_json(const EvaluationRecord& record) {
  Json classes = Json::object();
  for (const VocClassScore& one : record.classes)
    classes[one.name] = {{"ap", or_null(one.ap)},
                         {"npos", one.positives},
                         {"ndet", one.detections},
                         {"max_recall", one.max_recall}};
  return {{"step", record.step},
          {"set", record.set},
          {"metric", record.metric},
          {"map", or_null(record.map)},
          {"map_rounded", or_null(record.map_rounded)},
          {"per_class", std::move(classes)},
          {"seconds", record.seconds}};
}

std::optional<UpdateRecord> update_from(const Json& json) {
  if (!json.contains("lr")) return std::nullopt;
  UpdateRecord record;
  record.step = static_cast<std::int64_t>(number(json, "step").value_or(0));
  record.epoch = number(json, "epoch").value_or(0);
  record.learning_rate = number(json, "lr").value_or(0);
  record.losses = {number(json, "rpn_cls").value_or(0), number(json, "rpn_bbox").value_or(0),
                   number(json, "cls").value_or(0), number(json, "bbox").value_or(0)};
  record.gradient_norm = number(json, "grad_norm").value_or(0);
  record.seconds = number(json, "seconds").value_or(0);
  return record;
}

EvaluationRecord evaluation_from(const Json& json) {
  EvaluationRecord record;
  record.step = static_cast<std::int64_t>(number(json, "step").value_or(0));
  record.set = text(json, "set");
  record.metric = text(json, "metric");
  record.map = number(json, "map");
  record.map_rounded = number(json, "map_rounded");
  record.seconds = number(json, "seconds").value_or(0);
  if (const auto classes = json.find("per_class"); classes != json.end() && classes->is_object())
    for (const auto& [name, one] : classes->items())
      record.classes.push_back({name,
                                number(one, "ap"),
                                {},
                                static_cast<std::int64_t>(number(one, "npos").value_or(0)),
                                static_cast<std::int64_t>(number(one, "ndet").value_or(0)),
                                number(one, "max_recall").value_or(0)});
  return record;
}

constexpr const char* loss_header = "step,epoch,lr,loss,rpn_cls,rpn_bbox,cls,bbox,grad_norm,seconds\n";
constexpr const char* map_header = "step,map,map_rounded,seconds\n";

std::string csv(const UpdateRecord& r) {
  return fmt::format("{},{:.4f},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g},{:.4f}\n", r.step, r.epoch,
                     r.learning_rate, r.losses.total(), r.losses.rpn_cls, r.losses.rpn_bbox, r.losses.cls,
                     r.losses.bbox, r.gradient_norm, r.seconds);
}

std::string csv(const EvaluationRecord& r) {
  const auto cell = [](const std::optional<double>& x) {
    return x ? fmt::format("{:.6f}", *x) : std::string();
  };
  return fmt::format("{},{},{},{:.2f}\n", r.step, cell(r.map), cell(r.map_rounded), r.seconds);
}

}  // namespace

// A file that grows by whole lines.
class RunLog::File {
 public:
  explicit File(std::string path) : path_(std::move(path)), file_(std::fopen(path_.c_str(), "ae")) {
    if (!file_) fail("cannot open");
  }
  ~File() { std::fclose(file_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  void append(const std::string& line) {
    if (std::fwrite(line.data(), 1, line.size(), file_) != line.size() || std::fflush(file_) != 0)
      fail("cannot write");
  }
  void sync() const {
    if (::fsync(::fileno(file_)) != 0 && errno != EINVAL && errno != EROFS) fail("cannot write");
  }

 private:
  [[noreturn]] void fail(const char* what) const {
    throw Error(ErrorCode::io,
                fmt::format("{}: {}: {}", path_, what, std::generic_category().message(errno)));
  }
  std::string path_;
  std::FILE* file_;
};

RunLog::RunLog(const std::string& directory, std::int64_t step) : directory_(directory) {
  keep_until(step);
  json_ = std::make_unique<File>(path("log.jsonl"));
  losses_ = std::make_unique<File>(path("loss.csv"));
  maps_ = std::make_unique<File>(path("map.csv"));
}

RunLog::~RunLog() = default;

// Rewrites all three files from what log.jsonl has until `step`. A line that was cut short is not JSON and
// goes.
void RunLog::keep_until(std::int64_t step) {
  std::string lines, losses = loss_header, maps = map_header;
  if (step > 0) {
    std::ifstream old(path("log.jsonl"), std::ios::binary);
    std::error_code none;
    if (!old && std::filesystem::exists(path("log.jsonl"), none)) fail_to_read();
    for (std::string line; std::getline(old, line);) {
      const Json json = Json::parse(line, nullptr, false);
      if (json.is_discarded() || !json.is_object() ||
          number(json, "step").value_or(INFINITY) > static_cast<double>(step))
        continue;
      lines += line + "\n";
      if (const auto update = update_from(json)) {
        remember(*update);
        losses += csv(*update);
      } else {
        evaluations_.push_back(evaluation_from(json));
        maps += csv(evaluations_.back());
      }
    }
    if (old.bad()) fail_to_read();
  }
  write_atomically(path("log.jsonl"), lines);
  write_atomically(path("loss.csv"), losses);
  write_atomically(path("map.csv"), maps);
}

void RunLog::fail_to_read() const {
  throw Error(ErrorCode::io, fmt::format("{}: cannot be read: {}", path("log.jsonl"),
                                         std::generic_category().message(errno)));
}

void RunLog::remember(const UpdateRecord& record) { updates_.push_back({record.step, record.losses}); }

void RunLog::add(const UpdateRecord& record) {
  json_->append(to_json(record).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
  losses_->append(csv(record));
  remember(record);
}

void RunLog::add(const EvaluationRecord& record) {
  json_->append(to_json(record).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
  maps_->append(csv(record));
  evaluations_.push_back(record);
}

void RunLog::sync() const {
  for (const auto* file : {&json_, &losses_, &maps_}) (*file)->sync();
}

void RunLog::plot() const {
  Plot losses{"Training loss", "updates", "loss (mean of neighbours)", {}, 0.0, std::nullopt};
  const auto series = [&](const char* name, const auto& value) {
    PlotSeries one{name, {}};
    for (const Point& point : updates_)
      one.points.emplace_back(static_cast<double>(point.step), value(point.losses));
    one.points = thinned(one.points, most_plot_points);
    losses.series.push_back(std::move(one));
  };
  series("total", [](const TrainLosses& l) { return l.total(); });
  series("rpn_cls", [](const TrainLosses& l) { return l.rpn_cls; });
  series("rpn_bbox", [](const TrainLosses& l) { return l.rpn_bbox; });
  series("cls", [](const TrainLosses& l) { return l.cls; });
  series("bbox", [](const TrainLosses& l) { return l.bbox; });
  write_atomically(path("loss.svg"), plot_svg(losses));
  if (evaluations_.empty()) return;
  Plot maps{
      "Mean average precision on the validation set", "updates", "mAP at IoU 0.5", {{"mAP", {}}}, 0.0, 1.0};
  for (const EvaluationRecord& one : evaluations_)
    if (one.map) maps.series[0].points.emplace_back(static_cast<double>(one.step), *one.map);
  write_atomically(path("map.svg"), plot_svg(maps));
}

}  // namespace frcnn
