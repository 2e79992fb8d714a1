// The file that keeps which kernels are the fastest.
#include "model_io/algo_cache.h"

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "catch.h"
#include "io/scratch.h"

using namespace frcnn;
using scratch::check_error;

namespace {

MachineTimes some_times() {
  MachineTimes times;
  times["a GPU, driver 13.0"]["conv2d stride 1"] = {"gemm:fp16:128x64", "cudnn:implicit_gemm", 0.125, 0.1};
  times["a GPU, driver 13.0"]["linear"] = {"gemm:\"quoted\"", "cublaslt:algo7", 1.0 / 3.0, std::nullopt};
  times["another"]["linear"] = {"x", "y", 0, 1e-9};
  return times;
}

}  // namespace

TEST_CASE("kernel times read back as they were written", "[algo_cache]") {
  const MachineTimes times = some_times();
  const std::string text = kernel_times_to_json(times);
  CHECK(kernel_times_from_json(text, "t.json") == times);
  CHECK(kernel_times_to_json(kernel_times_from_json(text, "t.json")) == text);
  CHECK(kernel_times_from_json(kernel_times_to_json({}), "t.json").empty());
}

TEST_CASE("what is no file of kernel times is refused with its place", "[algo_cache]") {
  const auto refused = [](const std::string& text, std::initializer_list<std::string> parts) {
    INFO(text);
    check_error([&] { kernel_times_from_json(text, "t.json"); }, ErrorCode::bad_file, parts);
  };
  refused("", {"t.json", "not JSON"});
  refused("[]", {"t.json: the file must be an object"});
  refused("{\n\"format\": ,}", {"t.json", "line 2"});
  refused("{\"format\": \"other\", \"version\": 1, \"machines\": {}}", {"t.json: the file is not of the format"});
  refused("{\"version\": 1, \"machines\": {}}", {"lacks \"format\""});
  const std::string head = "{\"format\": \"frcnn kernel times\", \"version\": ";
  refused(head + "2, \"machines\": {}}", {"version 2, this program knows 1", "remove the file"});
  refused(head + "1}", {"lacks \"machines\""});
  refused(head + "1, \"machines\": {\"g\": 1}}", {"t.json: g must be an object"});
  refused(head + "1, \"machines\": {\"g\": {\"l\": {\"ours\": \"a\"}}}}", {"t.json: g: l lacks \"library\""});
  const std::string entry = "{\"ours\": \"a\", \"library\": \"b\", \"ours_ms\": ";
  refused(head + "1, \"machines\": {\"g\": {\"l\": " + entry + "-1, \"library_ms\": 1}}}}", {"g: l"});
  refused(head + "1, \"machines\": {\"g\": {\"l\": " + entry + "1, \"library_ms\": \"1\"}}}}", {"g: l"});
  refused(head + "1, \"machines\": {\"g\": {}, \"g\": {}}}", {"twice"});
}

TEST_CASE("the cache file is made with its folders, and entries of others stay", "[algo_cache]") {
  const scratch::Folder folder;
  const std::string path = folder / "a/b/times.json";
  CHECK(read_algo_cache(path).empty());
  CHECK(read_algo_cache("").empty());
  MachineTimes times = some_times();
  for (const auto& [machine, layers] : times)
    for (const auto& [layer, entry] : layers) add_to_algo_cache(path, machine, layer, entry);
  CHECK(read_algo_cache(path) == times);
  times["another"]["linear"].ours_ms = 5;
  add_to_algo_cache(path, "another", "linear", times["another"]["linear"]);
  CHECK(read_algo_cache(path) == times);

  scratch::write(path, "broken");
  check_error([&] { add_to_algo_cache(path, "m", "l", {"a", "b", 1, 1}); }, ErrorCode::bad_file, {path});
  CHECK(scratch::read(path) == "broken");
  check_error([&] { read_algo_cache(folder / "a"); }, ErrorCode::io, {folder / "a"});
}

TEST_CASE("a cache file that would outgrow its reader drops other machines, then stays as it is",
          "[algo_cache]") {
  const scratch::Folder folder;
  const std::string path = folder / "times.json";
  const KernelTimes entry{"a", "b", 1, 1};
  const std::string third(std::size_t{1400} << 10, 'k');  // three of them and their names are more than 4 MiB
  add_to_algo_cache(path, "old", third + "1", entry);
  add_to_algo_cache(path, "old", third + "2", entry);
  add_to_algo_cache(path, "new", "small", entry);
  CHECK(read_algo_cache(path).size() == 2);
  add_to_algo_cache(path, "new", third + "3", entry);
  const MachineTimes made_room = read_algo_cache(path);
  CHECK(made_room == MachineTimes{{"new", {{"small", entry}, {third + "3", entry}}}});
  add_to_algo_cache(path, "new", third + "4", entry);
  add_to_algo_cache(path, "new", third + "5", entry);
  CHECK(read_algo_cache(path).at("new").size() == 3);
  CHECK(read_algo_cache(path).at("new").count(third + "5") == 0);
}

TEST_CASE("many writers of one cache file leave it whole", "[algo_cache]") {
  const scratch::Folder folder;
  const std::string path = folder / "times.json";
  std::vector<std::thread> writers;
  for (int w = 0; w < 4; ++w)
    writers.emplace_back([&, w] {
      for (int i = 0; i < 10; ++i)
        add_to_algo_cache(path, "m", std::to_string(w) + "." + std::to_string(i), {"a", "b", 1, 1});
    });
  for (std::thread& writer : writers) writer.join();
  const MachineTimes times = read_algo_cache(path);
  REQUIRE(times.size() == 1);
  CHECK(times.at("m").size() >= 10);  // the last ones of each other's may be lost
  CHECK(times.at("m").size() <= 40);
}

TEST_CASE("the default cache file follows the environment", "[algo_cache]") {
  const auto with = [](const char* cache, const char* home) {
    const auto set = [](const char* name, const char* value) { value ? setenv(name, value, 1) : unsetenv(name); };
    const char* const cache_now = std::getenv("XDG_CACHE_HOME");
    const char* const home_now = std::getenv("HOME");
    const std::string cache_before = cache_now ? cache_now : "", home_before = home_now ? home_now : "";
    set("XDG_CACHE_HOME", cache);
    set("HOME", home);
    const std::string path = default_algo_cache();
    set("XDG_CACHE_HOME", cache_now ? cache_before.c_str() : nullptr);
    set("HOME", home_now ? home_before.c_str() : nullptr);
    return path;
  };
  CHECK(with("/c", "/h") == "/c/frcnn/algos.json");
  CHECK(with(nullptr, "/h") == "/h/.cache/frcnn/algos.json");
  CHECK(with("", "/h") == "/h/.cache/frcnn/algos.json");
  CHECK(with("relative", "/h") == "/h/.cache/frcnn/algos.json");
  CHECK(with(nullptr, nullptr).empty());
}
