// Our decoding against OpenCV's, where Debian's python3-opencv is installed.
#include <array>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <unistd.h>

#include "catch.h"
#include "model_io/image_file.h"
#include "oracle.h"

TEST_CASE("image file: decodes as cv2.imread does") {
  namespace fs = std::filesystem;
  const fs::path folder = fs::temp_directory_path() / ("frcnn_oracle_" + std::to_string(::getpid()));
  fs::create_directories(folder);
  const std::string script = std::string(FRCNN_SOURCE_DIR) + "/tests/io/image_oracle.py";
  const fs::path list = folder / "list.txt";
  if (!frcnn::test::ran_oracle("'" + script + "' '" + folder.string() + "' > '" + list.string() + "'", "cv2")) {
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
