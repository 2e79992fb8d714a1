// Our reading against PyTorch's own writing, where Debian's python3-torch is installed.
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>

#include "catch.h"
#include "model_io/convert/torch_file.h"
#include "model_io/safetensors.h"
#include "oracle.h"
#include "scratch.h"

using namespace frcnn;

TEST_CASE("torch file: reads what torch.save writes", "[.long][long]") {
  const scratch::Folder folder;
  const std::string script = std::string(FRCNN_SOURCE_DIR) + "/tests/io/torch_oracle.py",
                    list = folder / "list";
  if (!test::ran_oracle("'" + script + "' '" + folder.path() + "' > '" + list + "'", "torch")) return;
  std::istringstream lines(scratch::read(list));
  std::size_t files = 0, refused = 0, compared = 0;
  for (std::string line; std::getline(lines, line);) {
    INFO(line);
    const std::string name = line.substr(0, line.find(' '));
    const std::string bytes = scratch::read(folder / name);
    const std::span<const std::byte> span(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size());
    CHECK(looks_like_torch_file(span));
    if (name != line) {
      const Error error = scratch::error_of([&] { read_torch_file(span, name); });
      CHECK(std::string(error.what()).find(name) != std::string::npos);
      ++refused;
      continue;
    }
    const TorchFile file = read_torch_file(span, name);
    const auto wanted = SafetensorsFile::open(folder / (name + ".safetensors"));
    REQUIRE(file.tensors.size() == wanted->tensors().size());
    for (const TorchFileTensor& tensor : file.tensors) {
      INFO(tensor.name);
      const StoredTensor* expected = wanted->find(tensor.name);
      REQUIRE(expected);
      CHECK(static_cast<int>(tensor.dtype) == static_cast<int>(expected->dtype));
      CHECK(tensor.shape == expected->shape);
      REQUIRE(tensor.bytes == expected->bytes);
      CHECK((tensor.bytes == 0 || std::memcmp(tensor.data, expected->data, tensor.bytes) == 0));
      ++compared;
    }
    ++files;
  }
  CHECK(files > 30);
  CHECK(refused == 6);
  WARN(files << " files with " << compared << " tensors compared with PyTorch, " << refused << " refused");
}
