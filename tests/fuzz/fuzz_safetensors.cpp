// Any bytes as a safetensors file: an Error, or tensors that lie inside the bytes and can be written again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "frcnn/error.h"
#include "model_io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto file = frcnn::SafetensorsFile::parse({reinterpret_cast<const std::byte*>(data), size}, "fuzz");
    std::size_t sum = 0;
    unsigned touched = 0;
    for (const frcnn::StoredTensor& tensor : file->tensors()) {
      sum += tensor.bytes;
      if (file->find(tensor.name) != &tensor) std::abort();
      for (std::size_t i = 0; i < tensor.bytes; ++i) touched += static_cast<const std::uint8_t*>(tensor.data)[i];
    }
    if (sum > size || touched == ~0u) std::abort();
    frcnn::write_safetensors("/dev/null", file->tensors(), file->metadata());
  } catch (const frcnn::Error&) {
  }
  return 0;
}
