// The safetensors format: 8 bytes of header length, a JSON header, then raw little-endian tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graph/tensor.h"

namespace frcnn {

class MappedFile;

struct StoredTensor {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;  // any rank
  const void* data = nullptr;       // row-major, any alignment; a file's is valid while the file lives
  std::size_t bytes = 0;
};

// A read-only, memory-mapped file; checked whole when opened: header length, JSON, offsets without overlap or
// holes, sizes that match shapes (overflow included), no duplicate names. Throws Error(io) or Error(bad_file)
// naming the file and the tensor; Error(unsupported) for an element type that DType lacks. Safe to read from
// several threads. A file that somebody shortens while it is mapped kills the reader with SIGBUS, as with any
// mapping: replace files by renaming, as write_safetensors does.
class SafetensorsFile {
 public:
  static std::shared_ptr<const SafetensorsFile> open(const std::string& path);
  // The same for a file that is mapped already; `name` stands for the path in messages.
  static std::shared_ptr<const SafetensorsFile> map(std::shared_ptr<const MappedFile> mapping,
                                                    const std::string& name);
  // The same checks on bytes in memory, which must outlive the object; `name` stands for the path in
  // messages.
  static std::shared_ptr<const SafetensorsFile> parse(std::span<const std::byte> bytes,
                                                      const std::string& name);

  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // in file order
  const StoredTensor* find(const std::string& name) const;               // null if there is none
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::string& path() const { return path_; }
  // Gives the pages behind a tensor back to the system; reading it again maps them anew.
  void release_pages(const StoredTensor& tensor) const;

 private:
  std::string path_;
  std::shared_ptr<const MappedFile> mapping_;  // null for bytes in memory
  std::vector<StoredTensor> tensors_;
  std::map<std::string, std::size_t> index_;  // by name, into tensors_
  std::map<std::string, std::string> metadata_;
};

bool is_integer(DType dtype);
std::string shape_string(std::span<const std::int64_t> shape);  // "512x512x3x3"; "scalar" for rank 0
std::string printable(
    const std::string& name);  // for messages: in quotes, control bytes escaped, cut when long

// Writes to a temporary name in the same folder, syncs, then renames: on any failure the old file stands
// untouched. Tensors are written in the given order, one right after the other as the format demands; spaces
// after the header make the first start at a multiple of 64. Throws Error(io), or Error(invalid_argument) for
// two tensors of one name, a name that is not UTF-8, or bytes that do not match dtype and shape.
void write_safetensors(const std::string& path, std::span<const StoredTensor> tensors,
                       const std::map<std::string, std::string>& metadata);

}  // namespace frcnn
