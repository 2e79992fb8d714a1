// The sizes of an image's own maps are those that its graph alone would have.
#include "detector/faster_rcnn.h"
#include "detector/map_sizes.h"
#include "tiny_detector.h"

using namespace frcnn;

namespace {

ModelConfig with_layers(std::int64_t stride, std::int64_t pad, const MaxPool& pool) {
  ModelConfig config = tiny::config();
  config.backbone[0].stride = stride;
  config.backbone[0].pad = pad;
  config.backbone[1].pool = pool;
  return config;
}

std::shared_ptr<const Model> model_with(const ModelConfig& config, std::int64_t kernel) {
  tiny::Tensors tensors = tiny::tensors(config);
  tiny::Tensor& weight = tensors.at("conv1.weight");
  weight.shape = {8, 3, kernel, kernel};
  weight.values.assign(static_cast<std::size_t>(24 * kernel * kernel), 0.01f);
  return test::model_of(config, tensors);
}

}  // namespace

TEST_CASE("an image's map sizes are those of its own graph, and less than one where that cannot be made") {
  std::size_t made = 0, refused = 0;
  const auto pool = [](int kernel, int stride, int pad, Rounding rounding) {
    MaxPool p;
    p.kernel = kernel;
    p.stride = stride;
    p.pad = pad;
    p.rounding = rounding;
    return p;
  };
  const std::vector<MaxPool> pools{pool(2, 2, 0, Rounding::ceil), pool(2, 2, 0, Rounding::floor),
                                   pool(3, 2, 1, Rounding::ceil), pool(3, 2, 0, Rounding::floor),
                                   pool(3, 3, 1, Rounding::ceil), pool(5, 1, 2, Rounding::floor)};
  for (const MaxPool& p : pools) {
    for (const auto& [kernel, stride, pad] : {std::array{3, 2, 1}, {7, 2, 3}, {5, 1, 0}, {1, 3, 0}}) {
      const auto model = model_with(with_layers(stride, pad, p), kernel);
      const MapSizes sizes(*model);
      for (const std::int64_t height : {1, 2, 3, 4, 5, 9, 16, 31, 64}) {
        for (const std::int64_t width : {1, 3, 6, 7, 8, 17, 40, 97}) {
          INFO("pool " << p.kernel << "/" << p.stride << "/" << p.pad << ", convolution " << kernel << "/"
                       << stride << "/" << pad << ", input " << height << "x" << width);
          const std::array<std::int32_t, 4> found = sizes.of(height, width);
          std::array<std::int64_t, 4> own{};
          try {
            const Graph graph = build_graph(*model, {GraphRequest::Source::image, 1, height, width});
            const Shape features = graph.value(graph.find("conv2")).spec.shape,
                        rpn = graph.value(graph.find(model->config.names.rpn_top)).spec.shape;
            own = {features[1], features[2], rpn[1], rpn[2]};
          } catch (const Error&) {
            CHECK(*std::min_element(found.begin(), found.end()) < 1);
            ++refused;
            continue;
          }
          CHECK(std::equal(found.begin(), found.end(), own.begin()));
          ++made;
        }
      }
    }
  }
  CHECK(made > 500);
  CHECK(refused > 50);
}
