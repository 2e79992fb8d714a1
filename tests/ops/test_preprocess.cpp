#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>

#include "op_runner.h"
#include "pixels.h"
#include "reference/preprocess.h"

using namespace frcnn;
using namespace frcnn::test;

namespace {

struct Case {
  Shape image;
  double scale;
};

// Enlarging, shrinking, both borders, single rows and columns, and the sizes that a 600/1000 rule makes of
// photographs.
const Case cases[] = {
    {{1, 1, 1, 3}, 1.0},
    {{1, 1, 1, 3}, 7.0},
    {{1, 1, 40, 3}, 3.0},
    {{1, 40, 1, 3}, 2.5},
    {{1, 33, 47, 3}, 1.0},
    {{1, 33, 47, 3}, 2.0},
    {{1, 33, 47, 3}, 0.5},
    {{1, 32, 46, 3}, 0.25},
    {{2, 13, 29, 3}, 1.7},
    {{1, 90, 61, 3}, 1.0 / 3},
    {{1, 75, 100, 3}, 600.0 / 375},
    {{1, 120, 160, 3}, 224.0 / 480},
    {{1, 7, 300, 3}, 0.3},
    {{3, 2, 2, 3}, 10.1},
    {{1, 53, 71, 3}, 1000.0 / 713},
};

std::int64_t resized(std::int64_t size, double scale) {
  return std::llrint(static_cast<double>(size) * scale);
}

Tensor image_of(const Shape& shape, unsigned salt) {
  Tensor image({shape, DType::u8});
  std::mt19937 random(base_seed() * 7919u + salt);
  for (std::uint8_t& level : image.as<std::uint8_t>()) level = static_cast<std::uint8_t>(random() >> 24);
  return image;
}

std::string text(const Case& c) {
  return "preprocess " + to_string(c.image) + ", scale " + std::to_string(c.scale);
}

const std::array<double, 3> means{102.9801, 115.9465, 122.7717};

// What is held against the specification.
void check_bits(const Preprocess& op, const Tensor& image, const Shape& size) {
  const std::vector<std::uint8_t> bgr = reference::to_bgr(op, image.spec.shape, image.as<std::uint8_t>());
  const Shape out{size[0], resized(size[1], op.scale), resized(size[2], op.scale), 3};
  const auto expected = reference::preprocess<float>(op.scale, op.mean_bgr, size, bgr, out);
  const std::vector<Tensor> got = run_op_any_threads(op, {image});
  CHECK(got[0].spec.shape == out);
  REQUIRE(got[0].bytes.size() == expected.size() * sizeof(float));
  CHECK(std::memcmp(got[0].bytes.data(), expected.data(), got[0].bytes.size()) == 0);
}

}  // namespace

TEST_CASE("preprocess: the specified bits", "[preprocess]") {
  for (const Case& c : cases) {
    FRCNN_CASE(text(c));
    check_bits({c.scale, means}, image_of(c.image, 1), c.image);
    check_bits({c.scale, means, PixelFormat::rgb}, image_of(c.image, 2), c.image);
  }
}

// The sizes of the table as a decoder lays them out: any pitch, odd sides, random bytes behind the rows.
TEST_CASE("preprocess: frames with a pitch, of every format", "[preprocess]") {
  int turn = 0;
  for (const Case& c : cases) {
    for (const PixelFormat format : {PixelFormat::bgr, PixelFormat::rgb, PixelFormat::nv12}) {
      const std::int64_t height = c.image[1], width = c.image[2], spare = std::array{0, 1, 29}[turn++ % 3];
      const bool nv12 = format == PixelFormat::nv12;
      const Shape frame{c.image[0], nv12 ? height + (height + 1) / 2 : height,
                        (nv12 ? (width + 1) / 2 * 2 : 3 * width) + spare};
      FRCNN_CASE(text(c) + ", format " + std::to_string(static_cast<int>(format)) + ", frame " +
                 to_string(frame));
      check_bits({c.scale, means, format, height, width}, image_of(frame, 3), c.image);
    }
  }
}

#if !defined(FRCNN_TEST_CUDA)
// The formula in whole numbers against the recommendation's in real ones.
TEST_CASE("pixels: BT.601 to BGR is right to half a level", "[preprocess]") {
  const double kr = 0.299, kg = 0.587, kb = 0.114;
  double worst = 0;
  for (int y = 0; y < 256; ++y) {
    for (int u = 0; u < 256; u += 3) {
      for (int v = 0; v < 256; v += 5) {
        const double luma = (y - 16) / 219.0, cb = (u - 128) / 224.0, cr = (v - 128) / 224.0;
        const double r = luma + 2 * (1 - kr) * cr, b = luma + 2 * (1 - kb) * cb,
                     g = (luma - kr * r - kb * b) / kg;
        const Bgr got = bgr_of_bt601(y, u, v);
        const double exact[3] = {b, g, r};
        for (int c = 0; c < 3; ++c)
          worst = std::max(worst, std::abs(got.level[c] - std::clamp(255 * exact[c], 0.0, 255.0)));
      }
    }
  }
  CHECK(worst > 0.4);
  CHECK(worst < 0.505);
  const auto is = [](const Bgr& pixel, int b, int g, int r) {
    return pixel.level[0] == b && pixel.level[1] == g && pixel.level[2] == r;
  };
  CHECK(is(bgr_of_bt601(16, 128, 128), 0, 0, 0));
  CHECK(is(bgr_of_bt601(235, 128, 128), 255, 255, 255));
  CHECK(is(bgr_of_bt601(81, 90, 240), 0, 0, 254));  // the recommendation's red, green and blue bars
  CHECK(is(bgr_of_bt601(145, 54, 34), 1, 255, 0));
  CHECK(is(bgr_of_bt601(41, 240, 110), 255, 0, 0));
}

// The rule was derived from OpenCV's code; where OpenCV is installed, it is asked. Other devices give the
// CPU's bits.
TEST_CASE("preprocess: as cv2.resize", "[preprocess][oracle]") {
  std::string python;
  for (const char* candidate : {"python3", "/usr/bin/python3"}) {
    const std::string probe = std::string(candidate) + " -c 'import cv2, numpy' >/dev/null 2>&1";
    if (python.empty() && std::system(probe.c_str()) == 0) python = candidate;
  }
  if (python.empty()) {
    WARN("SKIPPED: python3 with cv2 and numpy is not installed, so the resize is not compared with OpenCV");
    return;
  }
  std::string pattern = (std::filesystem::temp_directory_path() / "frcnn-resize-XXXXXX").string();
  REQUIRE(mkdtemp(pattern.data()) != nullptr);
  const std::filesystem::path folder = pattern;
  const std::shared_ptr<void> removal(nullptr, [&folder](void*) { std::filesystem::remove_all(folder); });

  // One image file per case, and a list of them for the script.
  std::vector<Tensor> images;
  std::ofstream list(folder / "cases");
  list.precision(17);
  for (const Case& c : cases) {
    const std::size_t index = images.size();
    images.push_back(image_of(c.image, 2));
    std::ofstream(folder / ("in" + std::to_string(index)), std::ios::binary)
        .write(reinterpret_cast<const char*>(images[index].bytes.data()),
               static_cast<std::streamsize>(images[index].bytes.size()));
    list << c.image[0] << ' ' << c.image[1] << ' ' << c.image[2] << ' ' << c.scale;
    for (const double mean : means) list << ' ' << mean;
    list << '\n';
  }
  list.close();
  const std::string command =
      python + " '" FRCNN_SOURCE_DIR "/tests/reference/resize_with_cv2.py' '" + pattern + "'";
  INFO(command);
  REQUIRE(std::system(command.c_str()) == 0);

  std::size_t index = 0;
  for (const Case& c : cases) {
    FRCNN_CASE(text(c));
    const std::vector<Tensor> got = run_op_any_threads(Preprocess{c.scale, means}, {images[index]});
    Tensor expected(got[0].spec);
    const std::filesystem::path file = folder / ("out" + std::to_string(index++));
    REQUIRE(std::filesystem::file_size(file) == expected.bytes.size());
    std::ifstream(file, std::ios::binary)
        .read(reinterpret_cast<char*>(expected.bytes.data()),
              static_cast<std::streamsize>(expected.bytes.size()));
    CHECK(max_error(got[0].as<float>(), expected.as<float>()) <= 1e-4);
  }
}
#endif
