#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "catch.h"
#include "model_io/class_list.h"
#include "model_io/convert/implied.h"

using namespace frcnn;

TEST_CASE("implied: plain VGG nets of every depth, ZF, and look-alikes") {
  const auto vgg = [](const std::vector<int>& groups, int width) {
    TensorShapes shapes;
    std::int64_t in = 3;
    for (std::size_t g = 0; g < groups.size(); ++g)
      for (int i = 0; i < groups[g]; ++i) {
        const std::int64_t out = std::min<std::int64_t>(std::int64_t{width} << g, 8 * width);
        shapes["conv" + std::to_string(g + 1) + "_" + std::to_string(i + 1) + ".weight"] = {out, in, 3, 3};
        in = out;
      }
    return shapes;
  };
  const std::vector<std::pair<std::vector<int>, std::string>> depths{{{1, 1, 2, 2, 2}, "VGG-11"},
                                                                     {{2, 2, 2, 2, 2}, "VGG-13"},
                                                                     {{2, 2, 3, 3, 3}, "VGG-16"},
                                                                     {{2, 2, 4, 4, 4}, "VGG-19"}};
  for (const auto& [groups, name] : depths) {
    const auto topology = topology_of(vgg(groups, 5));
    REQUIRE(topology);
    CHECK(topology->name == name);
    int convolutions = 0;
    for (const int g : groups) convolutions += g;
    CHECK(topology->backbone.size() == static_cast<std::size_t>(convolutions) + 4);
    CHECK(topology->backbone.back().name == "conv5_" + std::to_string(groups[4]));
    CHECK(topology->dropout_test_scale == 1);
    CHECK_FALSE(published_model(vgg(groups, 5)));
    REQUIRE(published_model(vgg(groups, 64)));
    CHECK(published_model(vgg(groups, 64))->name == name + " of ImageNet");
  }
  TensorShapes shapes = vgg({2, 2, 3, 3, 3}, 5);
  shapes["conv3_2.weight"] = {20, 20, 1, 1};
  CHECK_FALSE(topology_of(shapes));

  const auto five = [](std::vector<std::int64_t> widths) {
    TensorShapes out;
    const std::int64_t kernels[] = {7, 5, 3, 3, 3};
    for (std::size_t i = 0; i < 5; ++i)
      out["conv" + std::to_string(i + 1) + ".weight"] = {widths[i], i ? widths[i - 1] : 3, kernels[i],
                                                         kernels[i]};
    return out;
  };
  CHECK(topology_of(five({4, 5, 6, 7, 8}))->name == "ZF");
  CHECK_FALSE(topology_of(five({96, 256, 512, 512, 512})));  // VGG_CNN_M: the same names, other pads
  shapes = five({96, 256, 384, 384, 256});
  CHECK(published_model(shapes)->name == "ZF of ImageNet");
  shapes["conv2.weight"] = {256, 48, 5, 5};  // two groups
  CHECK_FALSE(topology_of(shapes));

  // Detectors: only the exact published shapes.
  shapes = vgg({2, 2, 3, 3, 3}, 64);
  const auto add_head = [&](std::int64_t anchors, std::int64_t classes) {
    shapes["rpn_conv/3x3.weight"] = {512, 512, 3, 3};
    shapes["rpn_cls_score.weight"] = {2 * anchors, 512, 1, 1};
    shapes["rpn_bbox_pred.weight"] = {4 * anchors, 512, 1, 1};
    shapes["fc6.weight"] = {4096, 25088};
    shapes["fc7.weight"] = {4096, 4096};
    shapes["cls_score.weight"] = {classes, 4096};
    shapes["bbox_pred.weight"] = {4 * classes, 4096};
  };
  add_head(9, 21);
  REQUIRE(published_model(shapes));
  CHECK(published_model(shapes)->anchor_scales == std::vector<double>{8, 16, 32});
  CHECK(published_model(shapes)->classes == voc_classes());
  add_head(12, 81);
  REQUIRE(published_model(shapes));
  CHECK(published_model(shapes)->anchor_scales == std::vector<double>{4, 8, 16, 32});
  CHECK(published_model(shapes)->classes == coco_classes());
  add_head(9, 22);
  CHECK_FALSE(published_model(shapes));
  add_head(9, 81);
  CHECK_FALSE(published_model(shapes));
  CHECK(voc_classes().size() == 21);
  CHECK(coco_classes().size() == 81);
}
