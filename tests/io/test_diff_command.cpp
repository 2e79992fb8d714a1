// `frcnn diff` as a program: what it prints and what it returns.
#include <sys/wait.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "model_io/compare.h"
#include "scratch.h"

namespace frcnn {
namespace {

struct Run {
  int code = -1;
  std::string out, err;
};

Run diff(const scratch::Folder& folder, const std::string& arguments) {
  const std::string command = "cd '" + folder.path() + "' && '" FRCNN_TOOL "' diff " + arguments + " >out.txt 2>err.txt";
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, scratch::read(folder / "out.txt"), scratch::read(folder / "err.txt")};
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

void make(const std::string& path, const std::vector<float>& conv, const std::vector<float>& fc, const std::string& extra) {
  const StoredTensor tensors[] = {{"fc", DType::f32, {2}, fc.data(), 8},
                                  {"conv", DType::f32, {1, 2, 2}, conv.data(), 16},
                                  {extra, DType::f32, {1}, fc.data(), 4}};
  write_safetensors(path, tensors, {{"order", order_to_json({"conv", "fc"})}});
}

}  // namespace

TEST_CASE("frcnn diff: equal files, then one that differs early and late") {
  scratch::Folder folder;
  make(folder / "a", {1, 2, 3, 4}, {5, 6}, "mine");
  make(folder / "b", {1, 2, 3, 4.0001f}, {5, 6}, "theirs");
  make(folder / "c", {1, 2, 3.5f, 4}, {5, 7}, "theirs");

  Run run = diff(folder, "a b");
  INFO(run.out << run.err);
  CHECK(run.code == 0);
  CHECK(has(run.out, "SAME: 2 tensors, 6 elements"));
  CHECK(has(run.out, "only in a: mine"));
  CHECK(has(run.out, "only in b: theirs"));
  CHECK(run.err.empty());

  run = diff(folder, "a c --json result.json");
  INFO(run.out << run.err);
  CHECK(run.code == 1);
  CHECK(run.out.find("conv") < run.out.find("fc"));
  CHECK(has(run.out, "[0,1,0] 3 against 3.5"));
  CHECK(has(run.out, "DIFFERENT: 2 of 2 tensors; the first diverging stage is conv"));
  const auto json = nlohmann::json::parse(scratch::read(folder / "result.json"));
  CHECK(json["same"] == false);
  CHECK(json["first_difference"] == "conv");
  CHECK(json["tensors"][0]["max_abs"] == 0.5);
  CHECK(json["tensors"][0]["worst"] == nlohmann::json({0, 1, 0}));
  CHECK(json["only_a"] == nlohmann::json({"mine"}));

  CHECK(diff(folder, "a c --rtol 0.2").code == 0);
  CHECK(diff(folder, "a c --atol 1").code == 0);
  CHECK(diff(folder, "a c --atol 0.5").code == 1);
  CHECK(diff(folder, "a b --rtol 0").code == 1);

  run = diff(folder, "a b --json -");
  CHECK(run.code == 0);
  CHECK(nlohmann::json::parse(run.out)["same"] == true);
}

TEST_CASE("frcnn diff: bad input is 1 and names the file, wrong usage is 2") {
  scratch::Folder folder;
  make(folder / "a", {1, 2, 3, 4}, {5, 6}, "x");
  const float value = 1;
  const StoredTensor other{"other", DType::f32, {1}, &value, 4};
  write_safetensors(folder / "b", {&other, 1}, {});
  Run run = diff(folder, "a b");
  CHECK(run.code == 1);
  CHECK(has(run.out, "no tensor in common"));

  scratch::write(folder / "cut", scratch::read(folder / "a").substr(0, 50));
  for (const char* name : {"cut", "missing", "."}) {
    run = diff(folder, std::string("a ") + name);
    INFO(run.err);
    CHECK(run.code == 1);
    CHECK(run.err.rfind("frcnn: error: " + std::string(name) + ": ", 0) == 0);
    CHECK(run.out.empty());
  }
  run = diff(folder, "a a --json missing/result.json");
  CHECK(run.code == 1);
  CHECK(has(run.err, "missing/result.json"));

  for (const char* arguments : {"", "a", "a b c", "a a --rtol", "a a --rtol x", "a a --rtol -1", "a a --atol nan", "a a --bogus"}) {
    run = diff(folder, arguments);
    INFO(arguments << ": " << run.err);
    CHECK(run.code == 2);
    CHECK(has(run.err, "frcnn: error: "));
  }
}

}  // namespace frcnn
