#include "dump_file.h"

#include <algorithm>
#include <string>
#include <vector>

#include "model_io/compare.h"
#include "model_io/safetensors.h"

namespace frcnn {
namespace {

NamedTensor detections_tensor(const DetectResult& result) {
  NamedTensor tensor{"detections", {static_cast<std::int64_t>(result.detections.size()), 6}, {}};
  for (const Detection& d : result.detections) {
    tensor.data.insert(tensor.data.end(), {static_cast<float>(d.class_id), d.score});
    tensor.data.insert(tensor.data.end(), d.box.begin(), d.box.end());
  }
  return tensor;
}

}  // namespace

void write_dump(const std::string& path, const Model& model, const DetectResult& result) {
  const NamedTensor detections = detections_tensor(result);
  std::vector<StoredTensor> stored;
  std::vector<std::string> order;
  const auto add = [&](const NamedTensor& tensor) {
    StoredTensor out;
    out.name = tensor.name;
    out.shape.assign(tensor.shape.dim.begin(), tensor.shape.dim.begin() + tensor.shape.rank);
    out.data = tensor.data.data();
    out.bytes = tensor.data.size() * sizeof(float);
    stored.push_back(std::move(out));
    order.push_back(tensor.name);
  };
  for (const NamedTensor& tensor : result.tensors) {
    if (tensor.name != detections.name) add(tensor);
  }
  if (model.config.kind == ModelKind::detector) add(detections);
  write_safetensors(path, stored, {{"order", order_to_json(order)}});
}

}  // namespace frcnn
