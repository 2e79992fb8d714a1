// Image files: JPEG, PNG and BMP through stb_image, PNG writing through stb_image_write.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace frcnn {

struct Image {                                 // 8-bit BGR, interleaved, packed
  int width = 0, height = 0;
  std::vector<std::uint8_t> bgr;
};

// Decodes as cv2.imread(IMREAD_COLOR) does: EXIF orientation applied, alpha dropped, grey repeated, 16 bits reduced to 8,
// CMYK converted. JPEG decoders differ, from OpenCV's by at most 3 levels in our tests. Three differences are wanted: a
// truncated file is an error (stb_image from 2.28 on may fill in the rest of a JPEG, as cv2.imread does), an XMP segment
// before the Exif one does not hide the orientation, and no buffer grows beyond what the stated size justifies.
// At most max_pixels (checked before decoding). Safe to call from several threads. Throws Error(io) or Error(bad_file)
// that names the file.
inline constexpr std::int64_t default_max_pixels = 256LL << 20;
Image read_image(const std::string& path, std::int64_t max_pixels = default_max_pixels);
Image decode_image(std::span<const std::uint8_t> bytes, const std::string& name,
                   std::int64_t max_pixels = default_max_pixels);

void write_png(const std::string& path, const Image& image);   // temporary name, then rename

}  // namespace frcnn
