// Image files: orientation, odd sizes, and everything that can be wrong with a file.
#include <array>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include <unistd.h>

#include "catch.h"
#include "frcnn/error.h"
#include "model_io/exif.h"
#include "model_io/image_file.h"

namespace {

using frcnn::Image;
using Bytes = std::vector<std::uint8_t>;
namespace fs = std::filesystem;

struct Folder {
  fs::path path;
  Folder() {
    static int number = 0;
    path = fs::temp_directory_path() / ("frcnn_image_" + std::to_string(::getpid()) + "_" + std::to_string(++number));
    fs::create_directories(path);
  }
  ~Folder() { fs::remove_all(path); }
  std::string file(const std::string& name) const { return (path / name).string(); }
};

Bytes content(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(in), {});
}

void append_be32(Bytes& out, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<std::uint8_t>(value >> shift));
}

Bytes chunk(const std::string& type, const Bytes& body) {         // stb_image does not check the CRC
  Bytes out;
  append_be32(out, static_cast<std::uint32_t>(body.size()));
  out.insert(out.end(), type.begin(), type.end());
  out.insert(out.end(), body.begin(), body.end());
  append_be32(out, 0);
  return out;
}

Bytes tiff(int orientation, bool little) {
  Bytes b = little ? Bytes{'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 0x01, 3, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
                   : Bytes{'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0};
  b[little ? 18 : 19] = static_cast<std::uint8_t>(orientation);
  return b;
}

Image numbered(int width, int height) {
  Image image;
  image.width = width;
  image.height = height;
  for (int i = 0; i < width * height * 3; ++i) image.bgr.push_back(static_cast<std::uint8_t>(7 * i + 3));
  return image;
}

Bytes png_of(const Image& image) {
  const Folder folder;
  frcnn::write_png(folder.file("x.png"), image);
  return content(folder.file("x.png"));
}

Bytes with_orientation(const Bytes& png, int orientation, bool little) {
  Bytes out(png.begin(), png.begin() + 33);                       // signature and IHDR
  const Bytes exif = chunk("eXIf", tiff(orientation, little));
  out.insert(out.end(), exif.begin(), exif.end());
  out.insert(out.end(), png.begin() + 33, png.end());
  return out;
}

// A grey 16x8 JPEG: 255 and 170 in the upper half, 85 and 0 in the lower.
const Bytes& small_jpeg() {
  static const Bytes bytes = [] {
    const std::string hex =
        "ffd8ffe000104a46494600010100000100010000ffdb0043000302020302020303030304030304050805050404050a070706080c0a0c0c"
        "0b0a0b0b0d0e12100d0e110e0b0b1016101113141515150c0f171816141812141514ffc0000b080008001001011100ffc4001500010100"
        "000000000000000000000000000708ffc400181000020300000000000000000000000000001967a5e4ffda0008010100003f00706691bd"
        "ee621c6691bdee63ffd9";
    Bytes out;
    for (std::size_t i = 0; i < hex.size(); i += 2) out.push_back(static_cast<std::uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
    return out;
  }();
  return bytes;
}

Bytes jpeg_with_segment(const Bytes& body) {
  Bytes out(small_jpeg().begin(), small_jpeg().begin() + 2);
  out.push_back(0xff);
  out.push_back(0xe1);
  out.push_back(static_cast<std::uint8_t>((body.size() + 2) >> 8));
  out.push_back(static_cast<std::uint8_t>(body.size() + 2));
  out.insert(out.end(), body.begin(), body.end());
  out.insert(out.end(), small_jpeg().begin() + 2, small_jpeg().end());
  return out;
}

Bytes exif_segment(int orientation, bool little) {
  Bytes body{'E', 'x', 'i', 'f', 0, 0};
  const Bytes block = tiff(orientation, little);
  body.insert(body.end(), block.begin(), block.end());
  return body;
}

std::array<int, 3> pixel(const Image& image, int x, int y) {
  const std::size_t at = 3 * static_cast<std::size_t>(y * image.width + x);
  return {image.bgr[at], image.bgr[at + 1], image.bgr[at + 2]};
}

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const frcnn::Error& error) {
    return error.what();
  }
  return "no error";
}

// A PNG header that claims a size, and data of that little sense.
Bytes png_claiming(std::uint32_t width, std::uint32_t height, const Bytes& data = {0x78, 0x01, 0x03, 0x00}) {
  Bytes out{0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'}, header;
  append_be32(header, width);
  append_be32(header, height);
  header.insert(header.end(), {8, 2, 0, 0, 0});
  for (const Bytes& part : {chunk("IHDR", header), chunk("IDAT", data), chunk("IEND", {})}) out.insert(out.end(), part.begin(), part.end());
  return out;
}

// A zlib stream of `repeats` times 258 equal bytes in 13 bits each.
Bytes deflated_zeros(int repeats) {
  Bytes out{0x78, 0x01};
  unsigned held = 0;
  int count = 0;
  const auto bit = [&](unsigned value) {
    held |= value << count;
    if (++count == 8) {
      out.push_back(static_cast<std::uint8_t>(held));
      held = 0;
      count = 0;
    }
  };
  const auto code = [&](unsigned value, int bits) { while (bits-- > 0) bit(value >> bits & 1u); };   // codes run from the top bit
  bit(1), bit(1), bit(0);                      // last block, fixed codes
  code(0x30, 8);                               // literal 0
  for (int i = 0; i < repeats; ++i) code(0xc5, 8), code(0, 5);   // length 258, distance 1
  code(0, 7);
  while (count != 0) bit(0);
  out.insert(out.end(), 4, 0);                 // the checksum, which is not looked at
  return out;
}

}  // namespace

TEST_CASE("image file: PNG written and read back is the same, down to one pixel") {
  const Folder folder;
  for (const auto& [width, height] : {std::pair{1, 1}, {1, 37}, {41, 1}, {2, 3}, {64, 48}}) {
    const Image image = numbered(width, height);
    const std::string path = folder.file("round.png");
    frcnn::write_png(path, image);
    const Image back = frcnn::read_image(path);
    CHECK(back.width == width);
    CHECK(back.height == height);
    CHECK(back.bgr == image.bgr);
  }
  CHECK(std::distance(fs::directory_iterator(folder.path), {}) == 1);   // no temporary file is left
}

TEST_CASE("image file: the eight orientations of PNG and JPEG") {
  const Image plain = numbered(5, 3);
  const Bytes png = png_of(plain);
  // Where the stored pixel (x, y) of a W x H image is shown, straight from the EXIF table of rows and columns.
  const auto shown_at = [](int orientation, int x, int y, int w, int h) -> std::pair<int, int> {
    switch (orientation) {
      case 1: return {x, y};
      case 2: return {w - 1 - x, y};
      case 3: return {w - 1 - x, h - 1 - y};
      case 4: return {x, h - 1 - y};
      case 5: return {y, x};
      case 6: return {h - 1 - y, x};
      case 7: return {h - 1 - y, w - 1 - x};
      default: return {y, w - 1 - x};
    }
  };
  const Image jpeg = frcnn::decode_image(small_jpeg(), "plain.jpg");
  REQUIRE(jpeg.width == 16);
  REQUIRE(jpeg.height == 8);
  CHECK(std::abs(pixel(jpeg, 12, 1)[0] - 170) <= 4);
  CHECK(std::abs(pixel(jpeg, 3, 6)[2] - 85) <= 4);
  for (int orientation = 1; orientation <= 8; ++orientation) {
    for (const bool little : {false, true}) {
      INFO("orientation " << orientation << (little ? " II" : " MM"));
      const Image turned = frcnn::decode_image(with_orientation(png, orientation, little), "turned.png");
      const Image turned_jpeg = frcnn::decode_image(jpeg_with_segment(exif_segment(orientation, little)), "turned.jpg");
      REQUIRE(turned.width == (orientation >= 5 ? 3 : 5));
      REQUIRE(turned_jpeg.width == (orientation >= 5 ? 8 : 16));
      for (const auto& [from, to] : {std::pair{&plain, &turned}, std::pair{&jpeg, &turned_jpeg}}) {
        bool same = true;
        for (int y = 0; y < from->height; ++y) {
          for (int x = 0; x < from->width; ++x) {
            const auto [u, v] = shown_at(orientation, x, y, from->width, from->height);
            same = same && pixel(*to, u, v) == pixel(*from, x, y);
          }
        }
        CHECK(same);
      }
    }
  }
}

TEST_CASE("image file: damaged EXIF never hurts the image") {
  CHECK(frcnn::exif_orientation(jpeg_with_segment(exif_segment(9, true))) == 1);
  CHECK(frcnn::exif_orientation(jpeg_with_segment(exif_segment(0, false))) == 1);
  CHECK(frcnn::exif_orientation({}) == 1);
  // An XMP segment before the Exif one is stepped over.
  Bytes xmp = jpeg_with_segment(exif_segment(6, true));
  const Bytes other{0xff, 0xe1, 0, 8, 'h', 't', 't', 'p', ':', '/'};
  xmp.insert(xmp.begin() + 2, other.begin(), other.end());
  CHECK(frcnn::exif_orientation(xmp) == 6);
  const Bytes whole = jpeg_with_segment(exif_segment(6, true));
  for (std::size_t keep = 0; keep <= 40; ++keep) {                // every truncation is read without harm
    const Bytes exact(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(keep));
    CHECK(frcnn::exif_orientation(exact) == (keep >= 38 ? 6 : 1));
  }
  Bytes offset = whole;
  offset[16] = 0xff, offset[17] = 0xff, offset[18] = 0xff, offset[19] = 0xff;   // the directory lies beyond the block
  CHECK(frcnn::exif_orientation(offset) == 1);
  Bytes count = whole;
  count[20] = 0xff, count[21] = 0xff;                             // more entries than there is room for
  CHECK(frcnn::exif_orientation(count) == 6);
  CHECK(frcnn::decode_image(offset, "offset.jpg").width == 16);
}

TEST_CASE("image file: every bad file is an error that names it") {
  const Folder folder;
  const auto written = [&](const std::string& name, const Bytes& bytes) {
    std::ofstream(folder.file(name), std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return folder.file(name);
  };
  const Bytes png = png_of(numbered(40, 30));
  struct Case { std::string path, part; };
  const std::vector<Case> cases = {
      {folder.file("missing.png"), "cannot open"},
      {folder.path.string(), "is a directory"},
      {written("empty.jpg", {}), "the file is empty"},
      {written("text.jpg", {'h', 'e', 'l', 'l', 'o'}), "not a JPEG, PNG or BMP image"},
      {written("one_byte.bmp", {'B'}), "not a JPEG, PNG or BMP image"},
      {written("header.png", Bytes(png.begin(), png.begin() + 20)), "."},
      {written("half.png", Bytes(png.begin(), png.begin() + static_cast<std::ptrdiff_t>(png.size() / 2))), "cannot decode"},
      {written("soi.jpg", {0xff, 0xd8, 0xff, 0xe0}), "."},
      {written("tables.jpg", Bytes(small_jpeg().begin(), small_jpeg().begin() + 90)), "."},
      {written("huge.png", png_claiming(20000, 20000)), "20000x20000, 400000000 pixels; the limit is 268435456"},
      {written("flat.png", png_claiming(0, 10)), "."},
      {written("wrong.png", png_claiming(60000, 2000)), "."},
  };
  for (const Case& one : cases) {
    const std::string message = message_of([&] { frcnn::read_image(one.path); });
    INFO(message);
    CHECK(message.find(one.path) == 0);
    CHECK(message.find(one.part) != std::string::npos);
  }
  CHECK(message_of([&] { frcnn::decode_image(png, "a.png", 1199); }).find("a.png: the image is 40x30, 1200 pixels; the limit is 1199") == 0);
  CHECK(frcnn::decode_image(png, "a.png", 1200).width == 40);
}

TEST_CASE("image file: data that inflates beyond the stated size is refused") {
  // 1x1 pixel, and 32 MB of zeros behind it in 200 kB.
  const std::string message = message_of([&] { frcnn::decode_image(png_claiming(1, 1, deflated_zeros(125000)), "bomb.png"); });
  CHECK(message == "bomb.png: its data does not fit its stated size, or memory is short");
  CHECK(frcnn::decode_image(png_claiming(1, 1, deflated_zeros(1)), "small.png").bgr == Bytes{0, 0, 0});
}

TEST_CASE("image file: CMYK and YCCK JPEGs") {
  for (const char* name : {"cmyk.jpg", "ycck.jpg"}) {
    const Image image = frcnn::read_image(std::string(FRCNN_SOURCE_DIR) + "/tests/fuzz/corpus/image/" + name);
    INFO(name);
    REQUIRE(image.width == 16);
    // 200 and 40 of cyan to the left and right, 180 and 20 of magenta above and below, 100 of yellow; 220 of black.
    const std::array<int, 3> want[] = {{86, 155, 173}, {86, 155, 35}, {86, 17, 173}, {86, 17, 35}};
    int corner = 0;
    for (const int y : {0, 15}) {
      for (const int x : {0, 15}) {
        for (std::size_t c = 0; c < 3; ++c) CHECK(std::abs(pixel(image, x, y)[c] - want[corner][c]) <= 4);
        ++corner;
      }
    }
  }
}

TEST_CASE("image file: a Huffman table of over 256 codes is refused wherever it stands") {
  Bytes table{0xff, 0xc4, 0x02, 0x13, 0x00};                      // 2 x 255 codes of 15 and 16 bits
  table.insert(table.end(), 14, 0);
  table.insert(table.end(), {255, 255});
  table.resize(2 + 0x213);
  const Bytes& jpeg = small_jpeg();
  std::size_t scan = 0;
  while (jpeg[scan] != 0xff || jpeg[scan + 1] != 0xda) ++scan;
  const std::size_t end = jpeg.size() - 2;                        // where EOI stands
  for (const std::size_t at : {std::size_t{2}, scan, end}) {
    for (const std::size_t fill : {0u, 1u, 3u}) {                 // with fill bytes before the marker, too
      Bytes bad = jpeg;
      bad.insert(bad.begin() + static_cast<std::ptrdiff_t>(at), table.begin(), table.end());
      bad.insert(bad.begin() + static_cast<std::ptrdiff_t>(at), fill, 0xff);
      INFO("at " << at << " after " << fill);
      CHECK(message_of([&] { frcnn::decode_image(bad, "bad.jpg"); }).find("bad.jpg: cannot decode the image: a Huffman table has over 256 codes") == 0);
    }
  }
  // The same bytes inside another segment are only a comment.
  Bytes comment{0xff, 0xfe, static_cast<std::uint8_t>((table.size() + 2) >> 8), static_cast<std::uint8_t>(table.size() + 2)};
  comment.insert(comment.end(), table.begin(), table.end());
  Bytes good = jpeg;
  good.insert(good.begin() + 2, comment.begin(), comment.end());
  CHECK(frcnn::decode_image(good, "good.jpg").width == 16);
}

TEST_CASE("image file: a PNG that cannot be written leaves nothing behind") {
  const Folder folder;
  const std::string nowhere = folder.file("no/such/folder/x.png");
  CHECK(message_of([&] { frcnn::write_png(nowhere, numbered(2, 2)); }).find(nowhere) != std::string::npos);
  CHECK(message_of([&] { frcnn::write_png(folder.file("none.png"), Image{}); }).find("0x0") != std::string::npos);
  CHECK(fs::is_empty(folder.path));
}
