// Our decoding against OpenCV's, where Debian's python3-opencv is installed.
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include "catch.h"
#include "model_io/image_file.h"

TEST_CASE("image file: decodes as cv2.imread does") {
  namespace fs = std::filesystem;
  const fs::path folder = fs::temp_directory_path() / ("frcnn_oracle_" + std::to_string(::getpid()));
  fs::create_directories(folder);
  const std::string script = std::string(FRCNN_SOURCE_DIR) + "/tests/io/image_oracle.py";
  const fs::path list = folder / "list.txt";
  bool ran = false;
  for (const char* python : {"python3", "/usr/bin/python3"}) {    // the first may be one that does not see Debian's modules
    const std::string command = std::string(python) + " '" + script + "' '" + folder.string() + "' > '" + list.string() + "'";
    const int status = std::system(command.c_str());
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    if (code == 77 || code == 127) continue;
    REQUIRE(code == 0);
    ran = true;
    break;
  }
  if (!ran) {
    WARN("SKIPPED: no python3 with cv2 here; decoding was not compared with OpenCV");
    fs::remove_all(folder);
    return;
  }
  std::ifstream lines(list);
  std::string name;
  int tolerance = 0, compared = 0, worst = 0;
  while (lines >> name >> tolerance) {
    INFO(name);
    std::ifstream raw(folder / (name + ".raw"), std::ios::binary);
    std::array<std::int32_t, 2> size{};
    raw.read(reinterpret_cast<char*>(size.data()), sizeof size);
    const std::vector<std::uint8_t> want{std::istreambuf_iterator<char>(raw), {}};
    const frcnn::Image got = frcnn::read_image((folder / name).string());
    CHECK(got.width == size[0]);
    CHECK(got.height == size[1]);
    REQUIRE(got.bgr.size() == want.size());
    int largest = 0;
    for (std::size_t i = 0; i < want.size(); ++i) largest = std::max(largest, std::abs(int{got.bgr[i]} - int{want[i]}));
    CHECK(largest <= tolerance);
    worst = std::max(worst, largest);
    ++compared;
  }
  CHECK(compared > 40);
  WARN(compared << " files compared with OpenCV, largest difference " << worst);
  fs::remove_all(folder);
}
