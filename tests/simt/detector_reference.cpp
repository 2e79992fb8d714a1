#include "tests/simt/detector_reference.h"

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "frcnn/error.h"
#include "model_io/model_file.h"
#include "model_io/safetensors.h"

namespace frcnn::simt_test {
namespace {

namespace fs = std::filesystem;

std::vector<std::int64_t> dims(const Shape& shape) {
  return {shape.dim.begin(), shape.dim.begin() + shape.rank};
}

StoredTensor stored(const std::string& name, const std::vector<float>& values,
                    std::vector<std::int64_t> shape) {
  return {name, DType::f32, std::move(shape), values.data(), values.size() * sizeof(float)};
}

const StoredTensor& need(const SafetensorsFile& file, const std::string& name) {
  const StoredTensor* const tensor = file.find(name);
  if (!tensor) throw Error(ErrorCode::bad_file, file.path() + ": no tensor " + name);
  return *tensor;
}

std::vector<float> floats(const StoredTensor& tensor) {
  std::vector<float> values(tensor.bytes / sizeof(float));
  std::memcpy(values.data(), tensor.data, tensor.bytes);
  return values;
}

void add_tensors(std::vector<StoredTensor>& list, std::vector<std::string>& names, const std::string& prefix,
                 const std::vector<NamedTensor>& tensors) {
  for (const NamedTensor& tensor : tensors) {
    names.push_back(prefix + tensor.name);
    list.push_back(stored(names.back(), tensor.data, dims(tensor.shape)));
  }
}

}  // namespace

void write_reference(const std::string& folder, const DetectorCase& test_case,
                     const DetectorReference& reference) {
  fs::create_directories(folder);
  const Model& model = *test_case.model;
  std::vector<StoredTensor> weights;
  for (const auto& [name, weight] : model.weights.all())
    weights.push_back(
        {name, weight.view.dtype, dims(weight.view.shape), weight.view.data, weight.view.bytes()});
  save_model((fs::path(folder) / "model.safetensors").string(), model.config, weights);

  std::vector<float> detections, proposals;
  for (const Detection& d : reference.all.detections)
    detections.insert(detections.end(),
                      {static_cast<float>(d.class_id), d.score, d.box[0], d.box[1], d.box[2], d.box[3]});
  for (const Proposal& p : reference.all.proposals)
    proposals.insert(proposals.end(), {p.score, p.box[0], p.box[1], p.box[2], p.box[3]});
  const Image& image = test_case.image;
  std::vector<StoredTensor> list{
      {"image", DType::u8, {image.height, image.width, 3}, image.bgr.data(), image.bgr.size()},
      stored("detections", detections, {static_cast<std::int64_t>(reference.all.detections.size()), 6}),
      stored("proposals", proposals, {static_cast<std::int64_t>(reference.all.proposals.size()), 5})};
  std::vector<std::string> names;
  add_tensors(list, names, "all.", reference.all.tensors);
  add_tensors(list, names, "head.", reference.head.tensors);
  const nlohmann::json about{{"name", test_case.name},
                             {"stages", reference.stages},
                             {"order", names},
                             {"plain_error", reference.plain_error}};
  write_safetensors((fs::path(folder) / "reference.safetensors").string(), list, {{"case", about.dump()}});
}

StoredReference read_reference(const std::string& folder) {
  StoredReference result;
  result.test_case.model = load_model((fs::path(folder) / "model.safetensors").string());
  const auto file = SafetensorsFile::open((fs::path(folder) / "reference.safetensors").string());
  const auto text = file->metadata().find("case");
  if (text == file->metadata().end())
    throw Error(ErrorCode::bad_file, file->path() + ": no metadata entry case");
  const nlohmann::json about = nlohmann::json::parse(text->second);
  result.test_case.name = about.at("name").get<std::string>();
  DetectorReference& reference = result.reference;
  reference.stages = about.at("stages").get<bool>();
  about.at("plain_error").get_to(reference.plain_error);

  const StoredTensor& image = need(*file, "image");
  if (image.shape.size() != 3) throw Error(ErrorCode::bad_file, file->path() + ": image is no image");
  result.test_case.image = {static_cast<int>(image.shape[1]), static_cast<int>(image.shape[0]), {}};
  result.test_case.image.bgr.resize(image.bytes);
  std::memcpy(result.test_case.image.bgr.data(), image.data, image.bytes);

  const std::vector<float> detections = floats(need(*file, "detections")),
                           proposals = floats(need(*file, "proposals"));
  for (std::size_t i = 0; i + 6 <= detections.size(); i += 6)
    reference.all.detections.push_back(
        {static_cast<int>(detections[i]),
         detections[i + 1],
         {detections[i + 2], detections[i + 3], detections[i + 4], detections[i + 5]}});
  for (std::size_t i = 0; i + 5 <= proposals.size(); i += 5)
    reference.all.proposals.push_back(
        {proposals[i], {proposals[i + 1], proposals[i + 2], proposals[i + 3], proposals[i + 4]}});
  reference.all.proposal_count = static_cast<std::int64_t>(reference.all.proposals.size());
  for (const std::string name : about.at("order")) {
    const StoredTensor& tensor = need(*file, name);
    NamedTensor named;
    named.name = name.substr(name.find('.') + 1);
    for (const std::int64_t d : tensor.shape)
      named.shape.dim[static_cast<std::size_t>(named.shape.rank++)] = d;
    named.data = floats(tensor);
    (name.rfind("all.", 0) == 0 ? reference.all : reference.head).tensors.push_back(std::move(named));
  }
  return result;
}

}  // namespace frcnn::simt_test
