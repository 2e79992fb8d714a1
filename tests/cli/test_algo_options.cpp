// --algo, --tune and --algo-cache on a machine without a GPU; with one, or something like it: tests/simt.
#include <filesystem>
#include <string>
#include <vector>

#include "catch.h"
#include "cli/png.h"
#include "cli/run_tool.h"
#include "cli/tiny_model.h"

using namespace frcnn;
using tool::run;

TEST_CASE("the CPU has no kernels of cuDNN, and nothing to choose from") {
  const tool::TempDir dir;
  const std::string model = dir / "m.safetensors", image = dir / "i.png";
  tiny::save(model);
  tool::write_file(image, png::picture(100, 70));
  const auto on_cpu = [&](const std::string& command, const std::vector<std::string>& more) {
    std::vector<std::string> arguments{command, model};
    if (command == "detect") arguments.insert(arguments.end(), {image, "--json", "-"});
    if (command == "bench") arguments.insert(arguments.end(), {"--iters", "1", "--warmup", "0", "--image", image});
    arguments.insert(arguments.end(), {"--device", "cpu"});
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  };
  for (const char* command : {"detect", "bench"}) {
    INFO(command);
    const auto refused = on_cpu(command, {"--algo", "cudnn"});
    CHECK(refused.code == 1);
    CHECK(refused.out.empty());
    CHECK(refused.err == "frcnn: error: cpu: cuDNN's kernels were asked for, which run on a GPU only\n");
  }
  const auto plain = on_cpu("detect", {});
  CHECK(plain.code == 0);
  const std::string cache = dir / "times.json";
  for (const std::vector<std::string>& more :
       {std::vector<std::string>{"--algo", "ours"}, {"--algo", "auto"},
        {"--algo", "auto", "--tune", "--algo-cache", cache}}) {
    const auto same = on_cpu("detect", more);
    CHECK(same.code == 0);
    CHECK(same.out == plain.out);
  }
  CHECK_FALSE(std::filesystem::exists(cache));  // nothing was measured
}
