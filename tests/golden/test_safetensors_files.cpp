// Files that another program wrote: each opens, and its tensors' sizes add up to the file.
#include <filesystem>

#include "golden.h"

namespace frcnn {

TEST_CASE("golden: every safetensors file opens and is fully accounted for") {
  const auto shared = golden::shared_directory();
  if (shared.empty()) return;
  golden::Tally tally("safetensors files");
  std::size_t files = 0, tensors = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(shared / "golden")) {
    if (!entry.is_regular_file() || entry.path().extension() != ".safetensors") continue;
    INFO(entry.path().string());
    const auto file = SafetensorsFile::open(entry.path().string());
    std::uint64_t header_bytes = 0;
    std::ifstream(entry.path(), std::ios::binary).read(reinterpret_cast<char*>(&header_bytes), 8);
    std::size_t bytes = 8 + static_cast<std::size_t>(header_bytes);
    CHECK_FALSE(file->tensors().empty());
    CHECK_FALSE(file->metadata().empty());
    for (const StoredTensor& tensor : file->tensors()) {
      std::size_t elements = 1;
      for (const std::int64_t dim : tensor.shape) elements *= static_cast<std::size_t>(dim);
      CHECK(tensor.bytes == elements * size_of(tensor.dtype));
      bytes += tensor.bytes;
      tally.count(elements);
    }
    CHECK(bytes == entry.file_size());
    ++files;
    tensors += file->tensors().size();
  }
  std::cout << "golden safetensors files: " << files << " files, " << tensors << " tensors\n";
  tally.finish();
}

}  // namespace frcnn
