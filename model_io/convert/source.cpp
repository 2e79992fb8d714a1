#include "model_io/convert/source.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <string_view>

#include "frcnn/error.h"
#include "model_io/convert/torch_file.h"
#include "model_io/mapped_file.h"
#include "model_io/model_file.h"
#include "model_io/safetensors.h"

namespace frcnn {
namespace {

// By the header's JSON alone: where the length before it is damaged, its reader says so.
bool looks_like_safetensors(std::string_view bytes) {
  if (bytes.size() < 10 || bytes[8] != '{') return false;
  const auto next = bytes.find_first_not_of(" \t\r\n", 9);
  return next == std::string_view::npos || bytes[next] == '"' || bytes[next] == '}';
}

bool looks_like_text(std::string_view bytes) {
  const std::string_view start = bytes.substr(0, 512);
  return std::all_of(start.begin(), start.end(), [](char c) {
    const auto u = static_cast<unsigned char>(c);
    return u >= 0x20 ? u != 0x7f : u == '\n' || u == '\r' || u == '\t';
  });
}

[[noreturn]] void refuse(const std::string& path, ErrorCode code, const char* what) {
  throw Error(code, path + ": " + what);
}

// Formats that people try, each with the next step.
void refuse_foreign(const std::string& path, std::string_view bytes) {
  const auto starts = [&](std::string_view magic) { return bytes.substr(0, magic.size()) == magic; };
  if (bytes.size() > 262 && bytes.substr(257, 5) == "ustar")
    refuse(path, ErrorCode::unsupported,
           "a tar archive; if a PyTorch before 0.1.10 wrote it, load and save it with a newer one");
  if (starts("\x89HDF\r\n\x1a\n"))
    refuse(path, ErrorCode::unsupported, "an HDF5 file; save the network as a binary .caffemodel");
  if (!looks_like_text(bytes)) return;
  if (starts("version https://git-lfs"))
    refuse(path, ErrorCode::bad_file, "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`");
  if (bytes.find("layer") != std::string_view::npos)
    refuse(path, ErrorCode::bad_file,
           "a text prototxt, which holds no weights; give the .caffemodel or .safetensors, and this file "
           "with --prototxt");
  refuse(path, ErrorCode::bad_file, "text, neither safetensors nor a caffemodel");
}

// Old files give every array four dimensions: biases are 1x1x1xN, fully connected weights 1x1xOutxIn.
std::vector<std::int64_t> plain_shape(std::vector<std::int64_t> shape, std::size_t rank) {
  while (shape.size() > rank && shape.front() == 1) shape.erase(shape.begin());
  return shape;
}

void take_blobs(Source& source) {
  std::set<std::string> seen;
  for (const CaffeLayer& layer : source.net->layers) {
    if (layer.blobs.empty()) continue;
    if (!seen.insert(layer.name).second)
      throw Error(ErrorCode::bad_file,
                  fmt::format("{}: two layers named {} hold weights", source.path, layer.name));
    for (std::size_t i = 0; i < layer.blobs.size(); ++i) {
      const CaffeBlob& blob = layer.blobs[i];
      SourceTensor tensor;
      tensor.file = source.path;
      tensor.source_name = fmt::format("{} blob {}", layer.name, i);
      tensor.name = layer.name + (i == 0 ? ".weight" : i == 1 ? ".bias" : fmt::format(".blob{}", i));
      tensor.dtype = tensor.source_dtype = blob.dtype;
      tensor.shape = i == 1 ? plain_shape(blob.shape, 1)
                            : plain_shape(blob.shape, layer.type == "InnerProduct" ? 2 : blob.shape.size());
      tensor.data = blob.data;
      tensor.bytes = blob.bytes;
      tensor.owner = blob.owner;
      source.tensors.push_back(std::move(tensor));
    }
  }
}

void take_safetensors(Source& source, const std::shared_ptr<const MappedFile>& mapping) {
  const auto file = SafetensorsFile::map(mapping, source.path);
  const auto ours = file->metadata().find("frcnn");
  source.format = ours == file->metadata().end() ? "safetensors" : "frcnn model";
  if (ours != file->metadata().end()) source.config = config_from_json(ours->second, source.path);
  for (const StoredTensor& stored : model_tensors(*file)) {
    if (stored.dtype != DType::f32 && stored.dtype != DType::f16 && stored.dtype != DType::bf16 &&
        stored.dtype != DType::f64)
      throw Error(ErrorCode::bad_model,
                  fmt::format("{}: {} holds {}; a weight must hold floating-point numbers", source.path,
                              stored.name, name_of(stored.dtype)));
    source.tensors.push_back({source.path, stored.name, stored.name, stored.dtype, stored.dtype, stored.shape,
                              stored.data, stored.bytes, file});
  }
}

void take_torch(Source& source, const std::shared_ptr<const MappedFile>& mapping) {
  TorchFile file = read_torch_file(mapping->bytes(), source.path);
  source.format = file.zip ? "PyTorch (zip)" : "PyTorch (without zip)";
  source.facts = std::move(file.facts);
  source.ignored = std::move(file.ignored);
  for (TorchFileTensor& tensor : file.tensors) {
    std::shared_ptr<const void> owner = tensor.owner ? tensor.owner : mapping;
    source.tensors.push_back({source.path, tensor.name, tensor.name, tensor.dtype, tensor.dtype,
                              std::move(tensor.shape), tensor.data, tensor.bytes, std::move(owner)});
  }
}

void translate_names(Source& source) {
  std::vector<std::string> names;
  for (const SourceTensor& tensor : source.tensors) names.push_back(tensor.name);
  SchemeNames translated = scheme_names(names, source.path);
  source.scheme = translated.scheme;
  for (std::size_t i = 0; i < names.size(); ++i)
    source.tensors[i].name = std::move(translated.tensors[i].name);
}

// Of two tensors of one name, one would be lost in silence.
void check_names(const Source& source) {
  std::map<std::string_view, std::string_view> seen;
  for (const SourceTensor& tensor : source.tensors)
    if (const auto [first, is_new] = seen.emplace(tensor.name, tensor.source_name); !is_new)
      throw Error(ErrorCode::bad_file,
                  fmt::format("{}: {} and {} are both {}", source.path, printable(std::string(first->second)),
                              printable(tensor.source_name), printable(tensor.name)));
}

}  // namespace

Source read_source(const std::string& path) {
  Source source;
  source.path = path;
  const auto mapping = MappedFile::open(path);
  const std::string_view bytes(reinterpret_cast<const char*>(mapping->bytes().data()),
                               mapping->bytes().size());
  const bool safetensors = looks_like_safetensors(bytes);
  if (safetensors || looks_like_torch_file(mapping->bytes())) {
    if (safetensors)
      take_safetensors(source, mapping);
    else
      take_torch(source, mapping);
    if (!source.config) translate_names(source);
    check_names(source);
    return source;
  }
  refuse_foreign(path, bytes.substr(0, 1 << 16));
  source.net = parse_caffemodel(mapping->bytes(), path);
  source.format = source.net->old_format ? "caffemodel (V1 layers)" : "caffemodel";
  take_blobs(source);
  check_names(source);
  return source;
}

}  // namespace frcnn
