// `frcnn data check` as its users meet it.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "train_run.h"

using namespace frcnn;
using namespace frcnn::train_run;

TEST_CASE("data check: a clean set, a bad one, and its repair") {
  voc_folder::VocFolder data;
  voc_folder::fill(data, 5);
  const auto clean = tool::run({"data", "check", data.path()});
  INFO(clean.err);
  CHECK(clean.code == 0);
  CHECK(clean.err.empty());
  CHECK(has(clean.out, "5 images, 10 objects"));
  CHECK(has(clean.out, "sqrt(area)"));
  CHECK(has(clean.out, "they count from 1"));
  CHECK(has(clean.out, "\n0 found"));

  data.add("bad", 40, 30, {{"cat", {9, 9, 3, 3}}, {"dog", {5, 5, 5, 5}}});
  const auto bad = tool::run({"data", "check", "voc:" + data.path(), "--preset", "bccd"});
  CHECK(bad.code == 1);
  CHECK(has(bad.out, "inverted (1, --fix repairs)"));
  CHECK(has(bad.out, data.annotation("bad") + ":7: box 9,9,3,3 of cat is inverted"));
  CHECK(has(bad.out, "2 found"));
  const auto json = tool::run({"data", "check", data.path(), "--json", "-"});
  CHECK(json.code == 1);
  const auto report = nlohmann::json::parse(json.out);
  REQUIRE(report["findings"].size() == 2);
  CHECK(report["findings"][0]["line"] == 7);
  CHECK(report["findings"][1]["defect"] == "zero-size");
  CHECK(report["quantiles"].size() == report["width"].size());

  const auto fixed = tool::run({"data", "check", data.path(), "--fix"});
  CHECK(fixed.code == 0);
  CHECK(has(fixed.out, "repaired " + data.annotation("bad")));
  CHECK(has(fixed.out, "becomes 3,3,9,9"));
  CHECK(std::filesystem::exists(data.annotation("bad") + ".orig"));
  CHECK(tool::run({"data", "check", data.path()}).code == 0);
}

TEST_CASE("data check: boxes are moved on demand only, and a repair that was stopped is finished") {
  voc_folder::VocFolder data;
  for (const char* id : {"a", "b", "c", "d", "e"}) data.add(id, 40, 30, {{"cat", {0, 0, 39, 29}}});
  data.set("train");
  const std::string before = tool::read_file(data.annotation("a"));
  const auto fixed = tool::run({"data", "check", data.path(), "--fix"});
  CHECK(fixed.code == 1);
  CHECK(has(fixed.out, "counted from 0 (1, --fix-origin repairs)"));
  CHECK(has(fixed.out, "they count from 0"));
  CHECK(tool::read_file(data.annotation("a")) == before);
  const auto moved = tool::run({"data", "check", data.path(), "--fix-origin"});
  INFO(moved.out + moved.err);
  CHECK(moved.code == 0);
  CHECK(has(moved.out, "becomes 1,1,40,30"));
  CHECK(has(tool::run({"data", "check", data.path()}).out, "they count from 1"));

  const std::string staged = voc_folder::VocFolder::xml(40, 30, {{"cat", {2, 3, 20, 20}}});
  data.write("Annotations/a.xml.repaired", staged);
  data.write("Annotations/.frcnn-repair", "x");
  CHECK(has(tool::run({"data", "check", data.path()}).out, "unfinished repair (1, --fix repairs)"));
  CHECK(has(tool::run({"data", "check", data.path(), "--fix"}).out, "finished an earlier repair"));
  CHECK(tool::read_file(data.annotation("a")) == staged);
}

TEST_CASE("data check: long lists are cut, wrong usage is told") {
  voc_folder::VocFolder data;
  std::vector<voc_folder::Object> objects;
  for (int i = 0; i < 30; ++i) objects.push_back({"cat", {5 + i, 5, 5 + i, 5}});
  data.add("many", 60, 30, objects);
  data.set("train");
  const auto cut = tool::run({"data", "check", data.path()});
  CHECK(has(cut.out, "and 10 more (--all shows them)"));
  CHECK_FALSE(has(tool::run({"data", "check", data.path(), "--all"}).out, " more (--all"));
  CHECK(tool::run({"data"}).code == 2);
  CHECK(tool::run({"data", "check"}).code == 2);
  const auto preset = tool::run({"data", "check", data.path(), "--preset", "none"});
  CHECK(preset.code == 2);
  CHECK(has(preset.err, "`frcnn data check --help`"));
  const auto set = tool::run({"data", "check", data.path(), "--set", "nope"});
  CHECK(set.code == 1);
  CHECK(has(set.err, data / "ImageSets/Main/nope.txt"));
  const auto missing = tool::run({"data", "check", data / "nowhere"});
  CHECK(missing.code == 1);
  CHECK(has(missing.err, "not a VOC dataset"));
}

TEST_CASE("data check: nothing is a fault, notes are none") {
  voc_folder::VocFolder data;
  const auto nothing = tool::run({"data", "check", data.path()});
  CHECK(nothing.code == 1);
  CHECK(has(nothing.out, "Annotations: there is no annotation"));
  voc_folder::fill(data, 3);
  data.set("test", {"p0"});
  data.add("other", 90, 60, {{"Dog", {1, 1, 20, 20}}, {"cow", {30, 10, 60, 40}}});
  data.set("one", {"other"});
  const auto noted = tool::run({"data", "check", data.path()});
  INFO(noted.out);
  CHECK(noted.code == 0);
  CHECK(has(noted.out, "4 images, 8 objects"));
  CHECK(has(noted.out, "notes, no faults (3)"));
  CHECK(has(noted.out, "the class Dog is written dog (3) as well: they count as one"));
  CHECK(has(noted.out, "the class cow has a single object"));
  CHECK(has(noted.out, "test.txt lies in train.txt as a whole (1 image)"));
  CHECK(has(tool::run({"data", "check", data.path(), "--set", "one"}).out, "1 image, 2 objects"));
  const auto json = nlohmann::json::parse(tool::run({"data", "check", data.path(), "--json", "-"}).out);
  CHECK(json["notes"].size() == 3);
  CHECK(json["classes"]["Dog"] == 4);
}
