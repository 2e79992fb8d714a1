#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>

#include "op_runner.h"
#include "ops/source_images.h"
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

const std::array<double, 3> means{102.9801, 115.9465, 122.7717};

// A case of the table as it lies in memory.
std::vector<SourceCase> images_of(const Case& c, PixelFormat format, std::int64_t spare = 0,
                                  bool upwards = false) {
  const SourceCase one{c.image[1], c.image[2], c.scale, format, spare, upwards};
  return std::vector<SourceCase>(static_cast<std::size_t>(c.image[0]), one);
}

// The blob that the specification makes of the images, with zeros around each.
std::vector<float> expected_blob(const Sources& sources, std::int64_t height, std::int64_t width) {
  std::vector<float> blob(sources.records.size() * static_cast<std::size_t>(height * width * 3), 0.0f);
  for (std::size_t n = 0; n < sources.records.size(); ++n) {
    const SourceImage& r = sources.records[n];
    const std::vector<std::uint8_t> bgr = reference::to_bgr(r, sources.pixels.as<std::uint8_t>());
    const Shape from{1, r.height, r.width, 3}, to{1, r.out_height, r.out_width, 3};
    const auto one = reference::preprocess<float>(r.inverse_scale, means, from, bgr, to);
    const auto row = static_cast<std::size_t>(r.out_width * 3);
    for (std::int64_t y = 0; y < r.out_height; ++y)
      std::copy_n(one.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(y) * row), row,
                  blob.begin() + (static_cast<std::ptrdiff_t>(n) * height + y) * width * 3);
  }
  return blob;
}

// What is held against the specification; `spare` rows and columns more than the largest image needs.
std::vector<Tensor> check_bits(const Sources& sources, std::int64_t spare = 0) {
  const Preprocess op{means, sources.height + spare, sources.width + spare};
  std::vector<Tensor> got = run_op_any_threads(op, sources.inputs());
  const std::vector<float> expected = expected_blob(sources, op.height, op.width);
  CHECK(got[0].spec.shape ==
        Shape{static_cast<std::int64_t>(sources.records.size()), op.height, op.width, 3});
  REQUIRE(got[0].bytes.size() == expected.size() * sizeof(float));
  CHECK(std::memcmp(got[0].bytes.data(), expected.data(), got[0].bytes.size()) == 0);
  return got;
}

constexpr PixelFormat formats[] = {PixelFormat::bgr, PixelFormat::rgb, PixelFormat::nv12};

}  // namespace

TEST_CASE("preprocess: the specified bits", "[preprocess]") {
  for (const Case& c : cases) {
    for (const PixelFormat format : {PixelFormat::bgr, PixelFormat::rgb}) {
      const std::vector<SourceCase> images = images_of(c, format);
      FRCNN_CASE("preprocess " + text(images[0]));
      check_bits(sources_of(images, 1));
    }
  }
}

// The sizes of the table as a decoder lays them out: any pitch, odd sides, random bytes behind the rows.
TEST_CASE("preprocess: frames with a pitch, of every format, downwards and upwards", "[preprocess]") {
  unsigned turn = 0;
  for (const Case& c : cases) {
    for (const PixelFormat format : formats) {
      const std::vector<SourceCase> images =
          images_of(c, format, std::array{0, 1, 29}[turn % 3u], turn % 2 == 0);
      ++turn;
      FRCNN_CASE("preprocess " + text(images[0]));
      check_bits(sources_of(images, 3));
    }
  }
}

TEST_CASE("preprocess: one batch of many sizes, scales and formats, zero where an image ends",
          "[preprocess]") {
  const std::vector<SourceCase> images{
      {13, 29, 1.7, PixelFormat::nv12, 5, true}, {1, 1, 1.0, PixelFormat::bgr},
      {33, 21, 0.5, PixelFormat::rgb, 1},        {1, 1, 7.0, PixelFormat::nv12},
      {20, 7, 2.3, PixelFormat::bgr, 0, true},   {13, 29, 1.7, PixelFormat::nv12, 5, true},
      {3, 40, 1.0 / 3, PixelFormat::rgb, 29},
  };
  for (const std::int64_t spare : {0, 1, 13}) {
    FRCNN_CASE("preprocess, " + std::to_string(spare) + " more rows and columns");
    const Sources all = sources_of(images, 4);
    const std::vector<Tensor> together = check_bits(all, spare);
    // Each image gives in the batch what it gives alone, whatever its place.
    const std::size_t image_bytes = together[0].bytes.size() / images.size();
    for (std::size_t n = 0; n < images.size(); ++n) {
      Sources one = all;
      one.records = {all.records[n]};
      const std::vector<Tensor> alone =
          run_op_any_threads(Preprocess{means, all.height + spare, all.width + spare}, one.inputs());
      CHECK(std::memcmp(alone[0].bytes.data(), together[0].bytes.data() + n * image_bytes, image_bytes) == 0);
    }
  }
}

#if !defined(FRCNN_GPU)  // whose memory the test does not reach
TEST_CASE("preprocess: pixels found by their addresses", "[preprocess]") {
  const Sources sources =
      sources_of({{13, 29, 1.7, PixelFormat::nv12, 5, true}, {33, 21, 0.5, PixelFormat::rgb, 1}}, 5);
  const Preprocess op{means, sources.height, sources.width};
  Sources addressed = sources;
  for (SourceImage& record : addressed.records) {
    const auto start = reinterpret_cast<std::uintptr_t>(sources.pixels.bytes.data());
    record.data += start;
    record.chroma += start;
  }
  CHECK(same_bytes(run_op_any_threads(op, {addressed.images()}), run_op_any_threads(op, sources.inputs())));
}
#endif

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
  std::vector<Sources> images;
  std::ofstream list(folder / "cases");
  list.precision(17);
  for (const Case& c : cases) {
    const std::size_t index = images.size();
    images.push_back(sources_of(images_of(c, PixelFormat::bgr), 2));
    const Tensor& pixels = images[index].pixels;
    std::ofstream(folder / ("in" + std::to_string(index)), std::ios::binary)
        .write(reinterpret_cast<const char*>(pixels.bytes.data()),
               static_cast<std::streamsize>(pixels.bytes.size()));
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
    FRCNN_CASE("preprocess " + to_string(c.image) + ", scale " + std::to_string(c.scale));
    const std::vector<Tensor> got = run_op_any_threads(
        Preprocess{means, images[index].height, images[index].width}, images[index].inputs());
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
