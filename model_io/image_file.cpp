#include "model_io/image_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>
#include <unordered_set>

#include "frcnn/error.h"
#include "model_io/atomic_file.h"
#include "model_io/exif.h"
#include "model_io/jpeg_tables.h"
#include "model_io/whole_file.h"

namespace {

// stb_image's memory during one decode. It sizes its buffers by what a file claims, and inflates a PNG until its data ends,
// so no single buffer may be larger than the stated size justifies (it reports a refusal as "outofmem"); and whatever
// it has not freed when the decode ends, by an assertion or by its own forgetfulness, is freed then. Memory starts as zeros,
// because a scan may name tables that its file never defines.
class DecodeMemory {
 public:
  explicit DecodeMemory(std::size_t largest_buffer) : largest_(largest_buffer) { current_ = this; }
  ~DecodeMemory() {
    current_ = nullptr;
    for (void* block : blocks_) std::free(block);
  }
  DecodeMemory(const DecodeMemory&) = delete;
  DecodeMemory& operator=(const DecodeMemory&) = delete;

  static void* allocate(std::size_t bytes) {
    if (!current_ || bytes > current_->largest_) return nullptr;
    void* const block = std::calloc(1, bytes);
    if (block) current_->blocks_.insert(block);
    return block;
  }
  static void* reallocate(void* old, std::size_t bytes) {
    if (!current_ || bytes > current_->largest_) return nullptr;
    current_->blocks_.erase(old);
    void* const block = std::realloc(old, bytes);
    current_->blocks_.insert(block ? block : old);
    return block;
  }
  static void release(void* block) {
    if (current_) current_->blocks_.erase(block);
    std::free(block);
  }

 private:
  static thread_local DecodeMemory* current_;   // of this thread's decode; null outside of one
  std::size_t largest_;
  std::unordered_set<void*> blocks_;
};
thread_local DecodeMemory* DecodeMemory::current_ = nullptr;

// An assertion inside the decoder means a file it did not foresee: an error of that file, not the end of the process.
[[noreturn]] void refuse_image() {
  throw frcnn::Error(frcnn::ErrorCode::bad_file, "an inconsistency that the decoder does not handle");
}

// stb_image copies nothing from nowhere for an empty PNG chunk, which memcpy does not allow.
void* copy_any(void* to, const void* from, std::size_t bytes) { return bytes ? std::memcpy(to, from, bytes) : to; }

}  // namespace

#define memcpy(to, from, bytes) copy_any(to, from, bytes)
#define STBI_MALLOC(bytes) DecodeMemory::allocate(bytes)
#define STBI_REALLOC(old, bytes) DecodeMemory::reallocate(old, bytes)
#define STBI_FREE(block) DecodeMemory::release(block)
#define STBI_ASSERT(condition) ((condition) ? static_cast<void>(0) : refuse_image())
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_ONLY_BMP
#define STBI_NO_STDIO
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#include <stb_image.h>
#undef memcpy

#define STBIW_ASSERT(condition) static_cast<void>(0)
#define STBI_WRITE_NO_STDIO
#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <stb_image_write.h>

namespace frcnn {
namespace {

std::string decoder_message() {
  const char* reason = stbi_failure_reason();
  const std::string_view text = reason ? reason : "unknown error";
  if (text == "unknown image type") return "not a JPEG, PNG or BMP image";
  if (text == "outofmem") return "its data does not fit its stated size, or memory is short";
  return fmt::format("cannot decode the image: {}", text);
}

// Turns and mirrors RGB pixels as an EXIF orientation asks, and makes them BGR on the way. Orientations 5..8 swap
// width and height.
Image oriented_bgr(const std::uint8_t* rgb, int width, int height, int orientation) {
  const bool transposed = orientation >= 5;
  const bool mirror_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool mirror_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Image image;
  image.width = transposed ? height : width;
  image.height = transposed ? width : height;
  image.bgr.resize(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3);
  std::uint8_t* out = image.bgr.data();
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x, out += 3) {
      int from_x = transposed ? y : x, from_y = transposed ? x : y;
      if (mirror_x) from_x = width - 1 - from_x;
      if (mirror_y) from_y = height - 1 - from_y;
      const std::uint8_t* in =
          rgb + 3 * (static_cast<std::size_t>(from_y) * static_cast<std::size_t>(width) + static_cast<std::size_t>(from_x));
      out[0] = in[2];
      out[1] = in[1];
      out[2] = in[0];
    }
  }
  return image;
}

void check_pixels(std::int64_t width, std::int64_t height, std::int64_t max_pixels) {
  if (width * height <= max_pixels) return;
  throw Error(ErrorCode::bad_file, fmt::format("the image is {}x{}, {} pixels; the limit is {}", width, height,
                                               width * height, max_pixels));
}

// stb_image refuses a large PNG without telling its size, so the header is read here first.
void check_png_size(std::span<const std::uint8_t> bytes, std::int64_t max_pixels) {
  if (bytes.size() < 24 || bytes[0] != 0x89 || bytes[1] != 'P' || bytes[12] != 'I' || bytes[13] != 'H') return;
  const auto number = [&](std::size_t at) {
    return static_cast<std::int64_t>(bytes[at] & 0x7f) << 24 | bytes[at + 1] << 16 | bytes[at + 2] << 8 | bytes[at + 3];
  };
  check_pixels(number(16), number(20), max_pixels);
}

}  // namespace

Image decode_image(std::span<const std::uint8_t> bytes, const std::string& name, std::int64_t max_pixels) {
  if (bytes.empty()) throw Error(ErrorCode::bad_file, fmt::format("{}: the file is empty", name));
  if (bytes.size() > INT_MAX) throw Error(ErrorCode::bad_file, fmt::format("{}: {} bytes are too many for an image", name, bytes.size()));
  const int length = static_cast<int>(bytes.size());
  const std::size_t for_data = 2 * bytes.size() + (std::size_t{1} << 20);   // decoders grow input copies by doubling
  int width = 0, height = 0, channels = 0;
  try {
    check_png_size(bytes, max_pixels);
    if (!jpeg_tables_fit(bytes)) throw Error(ErrorCode::bad_file, "cannot decode the image: a Huffman table has over 256 codes");
    {
      const DecodeMemory memory(for_data);
      if (!stbi_info_from_memory(bytes.data(), length, &width, &height, &channels) || width < 1 || height < 1) {
        // Asked for the header alone, stb_image tries every format and keeps the last complaint; asked to decode, it
        // tells what is wrong with the format that this is.
        stbi_image_free(stbi_load_from_memory(bytes.data(), length, &width, &height, &channels, 3));
        throw Error(ErrorCode::bad_file, decoder_message());
      }
    }
    check_pixels(width, height, max_pixels);
    // Four channels of 16 bits are the most that a pixel takes; a progressive JPEG pads each side to whole blocks. The
    // factor 2 leaves room for interlaced PNG, whose seven passes have a filter byte in every row.
    const std::size_t for_pixels = (static_cast<std::size_t>(width) + 64) * (static_cast<std::size_t>(height) + 64) * 8 * 2;
    const DecodeMemory memory(std::max(for_data, for_pixels));
    const std::unique_ptr<stbi_uc, void (*)(void*)> rgb(
        stbi_load_from_memory(bytes.data(), length, &width, &height, &channels, 3), &stbi_image_free);
    if (!rgb) throw Error(ErrorCode::bad_file, decoder_message());
    return oriented_bgr(rgb.get(), width, height, exif_orientation(bytes));
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", name, error.what()));
  }
}

Image read_image(const std::string& path, std::int64_t max_pixels) {
  const std::string bytes = read_whole_file(path, INT_MAX);
  return decode_image({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()}, path, max_pixels);
}

void write_png(const std::string& path, const Image& image) {
  if (image.width < 1 || image.height < 1) {
    throw Error(ErrorCode::invalid_argument, fmt::format("{}: an image of {}x{} pixels cannot be written", path, image.width, image.height));
  }
  // stb_image_write counts bytes in int and doubles its buffers.
  constexpr std::size_t limit = std::size_t{1} << 29;
  const std::size_t row = static_cast<std::size_t>(image.width) * 3;
  if ((row + 1) * static_cast<std::size_t>(image.height) > limit) {
    throw Error(ErrorCode::unsupported, fmt::format("{}: {}x{} pixels are too many for the PNG writer", path, image.width, image.height));
  }
  std::vector<std::uint8_t> rgb(image.bgr.size());
  for (std::size_t i = 0; i + 2 < rgb.size(); i += 3) {
    rgb[i] = image.bgr[i + 2];
    rgb[i + 1] = image.bgr[i + 1];
    rgb[i + 2] = image.bgr[i];
  }
  // Encoded whole before the file is touched, so that no exception of ours passes through the encoder.
  std::vector<std::uint8_t> png;
  const auto collect = [](void* to, void* data, int size) {
    auto* out = static_cast<std::vector<std::uint8_t>*>(to);
    const auto* from = static_cast<const std::uint8_t*>(data);
    out->insert(out->end(), from, from + size);
  };
  if (!stbi_write_png_to_func(collect, &png, image.width, image.height, 3, rgb.data(), static_cast<int>(row))) {
    throw Error(ErrorCode::out_of_memory, fmt::format("{}: cannot encode {}x{} pixels as PNG", path, image.width, image.height));
  }
  write_atomically(path, [&](const auto& append) { append(png.data(), png.size()); });
}

}  // namespace frcnn
