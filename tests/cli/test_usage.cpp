// Wrong usage, help, version: what main() owns.
#include <string>
#include <vector>

#include "catch.h"
#include "cli/run_tool.h"
#include "cli/tiny_model.h"
#include "kernels.h"
#include "model_io/detections_json.h"

using namespace frcnn;
using tool::run;

namespace {

const std::vector<std::string> commands{"detect", "run",   "diff", "convert", "export", "inspect",
                                        "eval",   "train", "data", "bench",   "doctor"};

bool starts_with(const std::string& text, const std::string& start) { return text.rfind(start, 0) == 0; }
bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("version names the program, its version and its commit") {
  const auto result = run({"--version"});
  CHECK(result.code == 0);
  CHECK(result.err.empty());
  int dots = 0;
  for (const char c : result.out) dots += c == '.';
  CHECK(starts_with(result.out, "frcnn "));
  CHECK(dots >= 2);
  CHECK(contains(result.out, " ("));
  CHECK(contains(result.out, ")\n"));
}

TEST_CASE("help of the program and of every command explains itself on stdout") {
  const auto all = run({"--help"});
  CHECK(all.code == 0);
  CHECK(all.err.empty());
  for (const std::string& command : commands) {
    INFO(command);
    CHECK(contains(all.out, "\n  " + command));
    const auto one = run({command, "--help"});
    CHECK(one.code == 0);
    CHECK(one.err.empty());
    CHECK(contains(one.out, "Usage: frcnn " + command));
    CHECK(contains(one.out, "Example"));
  }
}

TEST_CASE("wrong usage exits with 2, says what is wrong and where help is") {
  const std::vector<std::vector<std::string>> wrong{
      {},
      {"nosuchcommand"},
      {"--nosuchoption"},
      {"detect"},
      {"detect", "model.safetensors"},
      {"detect", "m", "i", "--nosuchoption"},
      {"detect", "m", "i", "--score", "1.5"},
      {"detect", "m", "i", "--score", "high"},
      {"detect", "m", "i", "--nms", "-1"},
      {"detect", "m", "i", "--short-side", "0"},
      {"detect", "m", "i", "--num-proposals", "0"},
      {"detect", "m", "i", "--num-proposals", "9", "--proposals", "p.json"},
      {"detect", "m", "i", "--max-detections", "-3"},
      {"detect", "m", "i", "--threads", "two"},
      {"detect", "m", "i", "--threads", "-1"},
      {"detect", "m", "i", "--precision", "fp12"},
      {"detect", "m", "i", "--algo", "fast"},
      {"detect", "m", "i", "--tune"},
      {"detect", "m", "i", "--algo", "cudnn", "--tune"},
      {"eval", "m", "--images", "d", "--algo-cache", "f"},
      {"bench", "m", "--algo", "ours", "--algo-cache", "f"},
      {"detect", "m", "i", "--json"},
      {"run", "m", "b"},
      {"run", "m", "b", "o", "extra"},
      {"inspect"},
      {"inspect", "m", "--input", "600"},
      {"inspect", "m", "--input", "600x"},
      {"inspect", "m", "--input", "0x600"},
      {"inspect", "m", "--input", "6x6x6"},
      {"doctor", "extra"},
      {"diff", "a"},
      {"convert"},
      {"eval"},
  };
  for (const auto& arguments : wrong) {
    std::string line = "frcnn";
    for (const std::string& word : arguments) line += " " + word;
    INFO(line);
    const auto result = run(arguments);
    CHECK(result.code == 2);
    CHECK(result.out.empty());
    CHECK(starts_with(result.err, "frcnn: error: "));
    CHECK(contains(result.err, "--help"));
    if (!arguments.empty() && starts_with(arguments.back(), "--nosuch")) {
      CHECK(contains(result.err, arguments.back()));
    }
  }
}

TEST_CASE("what a command takes is told where a file is missing or an option is not there") {
  const tool::TempDir dir;
  tool::write_file(dir / "b.pth", "mine");
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"convert", "a.pth", "-o", "m.safetensors"},
        {"convert", "a.pth"},
        {"convert"}}) {
    const auto result = run(arguments);
    CHECK(result.code == 2);
    CHECK(contains(result.err, "SOURCE... MODEL: files to convert, then the model file to write."));
  }
  CHECK(contains(run({"export", "m", "-o", "x"}).err, "\n  OUT"));
  CHECK_FALSE(contains(run({"detect", "m", "i", "--json"}).err, "IMAGE"));
  // Two sources and no model: the second is not replaced.
  const auto result = run({"convert", "a.caffemodel", dir / "b.pth"});
  CHECK(result.code == 2);
  CHECK(contains(result.err,
                 "b.pth: the last file is written, as a model file (.safetensors), which no .pth is"));
  CHECK(tool::read_file(dir / "b.pth") == "mine");
}

TEST_CASE("an unknown command is named, not taken for a missing one") {
  const auto result = run({"nosuchcommand"});
  CHECK(contains(result.err, "nosuchcommand"));
}

TEST_CASE("output that cannot be written is an error") {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"--version"}, {"--help"}, {"doctor"}}) {
    const auto result = run(arguments, {.stdout_to = "/dev/full"});
    CHECK(result.code == 1);
    CHECK(result.err == "frcnn: error: cannot write to standard output\n");
  }
}

TEST_CASE("a device or precision that is not there is an error that names it") {
  const tool::TempDir dir;
  tiny::save(dir / "m.safetensors");
  tool::write_file(dir / "image.png", "not needed");
  for (const std::vector<std::string>& choice : {std::vector<std::string>{"--device", "tpu"},
                                                 {"--device", "cuda:x"},
                                                 {"--device", "cuda:99"},
                                                 {"--precision", "tf32", "--device", "cpu"},
                                                 {"--precision", "fp16", "--device", "cpu"}}) {
    std::vector<std::string> arguments{"detect", dir / "m.safetensors", dir / "image.png"};
    arguments.insert(arguments.end(), choice.begin(), choice.end());
    INFO(choice[1]);
    const auto result = run(arguments);
    CHECK(result.code == 1);
    CHECK(result.out.empty());
    CHECK(starts_with(result.err, "frcnn: error: "));
    CHECK(contains(result.err, choice[1]));
  }
}

TEST_CASE("bf16 where the processor has none is an error, and auto then means fp32") {
  const tool::TempDir dir;
  tiny::save(dir / "m.safetensors");
  const std::string picture = std::string(FRCNN_SOURCE_DIR) + "/weights/images/BloodImage_00007.jpg";
  const auto precision_of = [&](const char* asked) {
    const auto result = run({"detect", dir / "m.safetensors", picture, "--device", "cpu", "--precision",
                             asked, "--json", dir / "out.json"});
    INFO(result.err);
    CHECK(result.code == 0);
    return read_detections(dir / "out.json").precision;
  };
  setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE", 1);
  const auto refused =
      run({"detect", dir / "m.safetensors", picture, "--precision", "bf16", "--device", "cpu"});
  CHECK(precision_of("auto") == "fp32");
  unsetenv("ONEDNN_MAX_CPU_ISA");
  CHECK(refused.code == 1);
  CHECK(refused.err ==
        "frcnn: error: precision bf16: this processor multiplies no bf16 (that takes AVX-512 BF16 or "
        "AMX); use fp32\n");
  CHECK(precision_of("fp32") == "fp32");
  if (!cpu::multiplies_bf16()) {
    WARN("SKIPPED: this processor multiplies no bf16");
    return;
  }
  CHECK(precision_of("bf16") == "bf16");
  CHECK(precision_of("auto") == "bf16");
}
