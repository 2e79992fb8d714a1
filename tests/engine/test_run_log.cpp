// The run's own records, and its plots.
#include <algorithm>
#include <cmath>

#include "catch.h"
#include "io/scratch.h"
#include "training/plot_svg.h"
#include "training/run_log.h"

using namespace frcnn;

namespace {

UpdateRecord update(std::int64_t step) {
  UpdateRecord record;
  record.step = step;
  record.learning_rate = 0.25;
  record.losses = {1, 2, 3, static_cast<double>(step)};
  record.gradient_norm = 1.5;
  record.images = {"a \"b\"", "c"};
  return record;
}

std::int64_t lines(const std::string& text) { return std::count(text.begin(), text.end(), '\n'); }

}  // namespace

TEST_CASE("run log: a resumed run keeps what was until its checkpoint and drops the rest") {
  const scratch::Folder folder;
  {
    RunLog log(folder.path(), 0);
    for (std::int64_t i = 1; i <= 5; ++i) log.add(update(i));
    log.add(EvaluationRecord{5, "val", "voc07", 0.5, 0.4, {{"cat", 0.5, 0.4, 3, 9, 0.7}}, 2});
    for (std::int64_t i = 6; i <= 9; ++i) log.add(update(i));
    log.add(EvaluationRecord{9, "val", "voc07", 0.75, {}, {}, 2});
    log.plot();
  }
  CHECK(lines(scratch::read(folder / "log.jsonl")) == 11);
  CHECK(lines(scratch::read(folder / "loss.csv")) == 10);
  CHECK(scratch::read(folder / "map.csv") ==
        "step,map,map_rounded,seconds\n5,0.500000,0.400000,2.00\n9,0.750000,,2.00\n");
  const std::string whole = scratch::read(folder / "loss.csv");
  scratch::write(folder / "log.jsonl",
                 scratch::read(folder / "log.jsonl") + "{\"step\":10,\"lr\":0.");  // killed while writing
  {
    RunLog log(folder.path(), 7);
    REQUIRE(log.evaluations().size() == 1);
    CHECK(log.evaluations()[0].map == 0.5);
    CHECK(log.evaluations()[0].set == "val");
    CHECK(log.evaluations()[0].metric == "voc07");
    CHECK(log.evaluations()[0].classes[0].detections == 9);
    for (std::int64_t i = 8; i <= 9; ++i) log.add(update(i));
  }
  CHECK(scratch::read(folder / "loss.csv") == whole);
  CHECK(lines(scratch::read(folder / "map.csv")) == 2);
  CHECK(lines(scratch::read(folder / "log.jsonl")) == 10);
  CHECK(whole.substr(0, whole.find('\n', 70)).find("\n1,0.0000,0.25,7,1,2,3,1,1.5,0.0000") !=
        std::string::npos);
  RunLog anew(folder.path(), 0);
  CHECK(anew.evaluations().empty());
  CHECK(lines(scratch::read(folder / "loss.csv")) == 1);
}

TEST_CASE("run log: a log that cannot be read is not replaced by an empty one") {
  const scratch::Folder folder;
  std::filesystem::create_directory(folder / "log.jsonl");
  scratch::write(folder / "loss.csv", "history");
  scratch::check_error([&] { RunLog log(folder.path(), 7); }, ErrorCode::io,
                       {folder / "log.jsonl", "cannot be read"});
  CHECK(scratch::read(folder / "loss.csv") == "history");
}

TEST_CASE("run log: what cannot be written is an error that names the file") {
  scratch::check_error([] { RunLog log("/nonexistent", 0); }, ErrorCode::io, {"/nonexistent/log.jsonl"});
}

TEST_CASE("plot: axes, lines, legend; what is not finite is left out") {
  Plot plot{"A & B", "x", "y", {{"one", {}}, {"two <", {{5, 1}}}}, 0.0, std::nullopt};
  for (int i = 0; i < 100; ++i) plot.series[0].points.emplace_back(i, i == 50 ? NAN : i * 0.01);
  const std::string svg = plot_svg(plot);
  CHECK(svg.find("<svg") == 0);
  CHECK(svg.find("A &amp; B") != std::string::npos);
  CHECK(svg.find("two &lt;") != std::string::npos);
  CHECK(svg.find("<polyline") != std::string::npos);
  CHECK(svg.find("<circle") != std::string::npos);
  CHECK(svg.find("nan") == std::string::npos);
  CHECK(svg.find(">80<") != std::string::npos);  // a tick
  for (const auto& points : std::vector<std::vector<std::pair<double, double>>>{
           {}, {{1, 1e20}, {2, 1e20}}, {{0, INFINITY}}, {{3, -1e-300}}}) {
    const std::string odd = plot_svg({"t", "x", "y", {{"s", points}}, {}, {}});
    CHECK(odd.find("nan") == std::string::npos);
    CHECK(odd.find("inf") == std::string::npos);
    CHECK(odd.size() < 20000);
  }
  // One evaluation: an axis from 0 to its update, not a fraction of an update around it.
  const std::string single = plot_svg({"t", "x", "y", {{"s", {{40, 0.5}}}}, 0.0, 1.0});
  for (const char* tick : {">0<", ">20<", ">40<", ">1<"}) CHECK(single.find(tick) != std::string::npos);
  CHECK(single.find(">40.2<") == std::string::npos);
  CHECK(single.find("cx=\"780.0\"") != std::string::npos);
}

TEST_CASE("thinned: means of neighbours") {
  std::vector<std::pair<double, double>> points;
  for (int i = 0; i < 10; ++i) points.emplace_back(i, i * i);
  CHECK(thinned(points, 20) == points);
  const auto five = thinned(points, 5);
  REQUIRE(five.size() == 5);
  CHECK(five[1] == std::pair{2.5, 6.5});
}
