// Any bytes as a VOC annotation. With a NUL byte among them, what stands before it is the list of images of a
// data set on disk, and what follows the annotation of image `a`.
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "frcnn/error.h"
#include "training/voc_dataset.h"

namespace {

// Made once, filled anew by each input.
struct DataSet {
  std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("frcnn-fuzz-voc-" + std::to_string(::getpid()));
  DataSet() {
    for (const char* name : {"Annotations", "ImageSets/Main", "JPEGImages"})
      std::filesystem::create_directories(folder / name);
    std::ofstream(folder / "JPEGImages" / "a.png") << "x";
  }
  ~DataSet() {
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
  }
};

void check(const frcnn::VocAnnotation& image) {
  for (const auto& object : image.objects)
    if (object.name.empty() || object.line < 1) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const DataSet disk;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::size_t nul = text.find('\0');
  try {
    if (nul == std::string_view::npos) {
      std::vector<std::string> remarks;
      check(frcnn::parse_voc_annotation(text, "fuzz.xml", &remarks));
      return 0;
    }
    std::ofstream(disk.folder / "ImageSets" / "Main" / "s.txt", std::ios::binary) << text.substr(0, nul);
    std::ofstream(disk.folder / "Annotations" / "a.xml", std::ios::binary) << text.substr(nul + 1);
    const frcnn::VocDataset set = frcnn::read_voc_dataset(disk.folder.string(), "s");
    for (const auto& image : set.images) {
      check(image);
      frcnn::voc_image_path(disk.folder.string(), image.id);
    }
    frcnn::object_names(set);
  } catch (const frcnn::Error&) {
  }
  return 0;
}
