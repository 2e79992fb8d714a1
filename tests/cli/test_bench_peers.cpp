// tools/bench_peers: nobody is timed who does not find the same.
#include <string>

#include "catch.h"
#include "oracle.h"
#include "run_tool.h"
#include "tiny_model.h"

using namespace frcnn;

TEST_CASE("bench_peers times equal results and refuses others", "[.long][long]") {
  const tool::TempDir folder;
  ModelConfig config = tiny::config();
  config.short_side = 160;
  config.long_side = 192;
  config.post_nms_top_n = 200;
  tiny::Tensors tensors = tiny::tensors(config);
  tiny::save(folder / "model.safetensors", config, tensors);
  for (float& weight : tensors.at("conv2.weight").values) weight *= 1.1f;
  tiny::save(folder / "other.safetensors", config, tensors);
  const std::string other = folder / "other.caffemodel", source = FRCNN_SOURCE_DIR;
  REQUIRE(tool::run({"export", folder / "other.safetensors", other, "--form", "opencv"}).code == 0);

  std::string arguments;
  for (const std::string& word : {source + "/tests/cli/peers_gate.py", source + "/tools/bench_peers",
                                  std::string(FRCNN_TOOL), folder / "model.safetensors", other,
                                  source + "/weights/images/BloodImage_00007.jpg", folder / "out"})
    arguments += "'" + word + "' ";
  test::ran_oracle(arguments, "torchvision and cv2");
}
