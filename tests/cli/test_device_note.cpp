// `--device auto` says once, on standard error, why it takes the CPU. Elsewhere in these tests the note is
// taken out of what is compared (run_tool.h).
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "catch.h"
#include "cli/png.h"
#include "cli/run_tool.h"
#include "cli/tiny_model.h"

using namespace frcnn;
using tool::run;

TEST_CASE("the device auto says why it takes the CPU, once and only then") {
  const tool::TempDir dir;
  const std::string model = dir / "m.safetensors", image = dir / "i.png", json = dir / "o.json";
  tiny::save(model);
  tool::write_file(image, png::picture(100, 70));
  const auto device = [&](const tool::Result& result) {
    INFO(result.out << result.err);
    REQUIRE(result.code == 0);
    return nlohmann::json::parse(tool::read_file(json))["device"].get<std::string>();
  };
  const std::vector<std::vector<std::string>> commands{
      {"detect", model, image, image, "--json", json},
      {"bench", model, "--iters", "2", "--warmup", "0", "--concurrency", "2", "--input", "70x100", "--image",
       image, "--json", json}};
  for (std::vector<std::string> command : commands) {
    INFO(command[0]);
    const tool::Result automatic = run(command);
    const bool on_cpu = device(automatic) == "cpu";
    CHECK(automatic.note.empty() != on_cpu);
    if (on_cpu) CHECK(automatic.note.find("CPU: cuda:0: ") != std::string::npos);  // with a reason behind it
    CHECK(automatic.err.find("note:") == std::string::npos);                       // no second one

    command.insert(command.end(), {"--device", "cpu"});
    const tool::Result asked = run(command);
    CHECK(device(asked) == "cpu");
    CHECK(asked.note.empty());
    CHECK(asked.err.find("note:") == std::string::npos);
  }
}
