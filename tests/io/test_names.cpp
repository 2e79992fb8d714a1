#include "catch.h"
#include "model_io/convert/names.h"
#include "scratch.h"

using namespace frcnn;
using scratch::check_error;

namespace {

std::vector<std::string> translated(const std::vector<std::string>& tensors, NameScheme scheme) {
  const SchemeNames names = scheme_names(tensors, "f");
  CHECK(static_cast<int>(names.scheme) == static_cast<int>(scheme));
  std::vector<std::string> out;
  for (std::size_t i = 0; i < names.tensors.size(); ++i) {
    CHECK(names.tensors[i].source == tensors[i]);
    out.push_back(names.tensors[i].name);
  }
  return out;
}

std::vector<std::string> weights(const std::string& prefix, const std::vector<int>& modules) {
  std::vector<std::string> names;
  for (const int m : modules) names.push_back(prefix + std::to_string(m) + ".weight");
  return names;
}

}  // namespace

TEST_CASE("names: the depths of torchvision's VGG") {
  using Names = std::vector<std::string>;
  CHECK(translated(weights("features.", {0, 3, 6, 8, 11, 13, 16, 18}), NameScheme::torchvision) ==
        Names{"conv1_1.weight", "conv2_1.weight", "conv3_1.weight", "conv3_2.weight", "conv4_1.weight",
              "conv4_2.weight", "conv5_1.weight", "conv5_2.weight"});
  CHECK(translated(weights("features.", {0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28}),
                   NameScheme::torchvision) ==
        Names{"conv1_1.weight", "conv1_2.weight", "conv2_1.weight", "conv2_2.weight", "conv3_1.weight",
              "conv3_2.weight", "conv3_3.weight", "conv4_1.weight", "conv4_2.weight", "conv4_3.weight",
              "conv5_1.weight", "conv5_2.weight", "conv5_3.weight"});
  CHECK(translated({"features.0.bias", "classifier.0.weight", "classifier.3.bias", "classifier.6.weight"},
                   NameScheme::torchvision) == Names{"conv1_1.bias", "fc6.weight", "fc7.bias", "fc8.weight"});
}

TEST_CASE("names: jwyang's, whatever their order") {
  using Names = std::vector<std::string>;
  CHECK(translated(
            {"RCNN_rpn.RPN_Conv.weight", "RCNN_rpn.RPN_cls_score.bias", "RCNN_rpn.RPN_bbox_pred.weight",
             "RCNN_base.2.bias", "RCNN_base.0.weight", "RCNN_base.5.weight", "RCNN_top.0.weight",
             "RCNN_top.3.bias", "RCNN_cls_score.weight", "RCNN_bbox_pred.bias"},
            NameScheme::jwyang) == Names{"rpn_conv/3x3.weight", "rpn_cls_score.bias", "rpn_bbox_pred.weight",
                                         "conv1_2.bias", "conv1_1.weight", "conv2_1.weight", "fc6.weight",
                                         "fc7.bias", "cls_score.weight", "bbox_pred.bias"});
}

TEST_CASE("names: Caffe's stay, and so do strangers") {
  using Names = std::vector<std::string>;
  const Names caffe{"conv1_1.weight", "rpn_conv/3x3.bias",  "fc6.weight",
                    "features",       "RCNN_base.x.weight", "odd"};
  CHECK(translated(caffe, NameScheme::caffe) == caffe);
  CHECK(translated({"features.0.weight", "fc6.weight", "RCNN_top.0.weight"}, NameScheme::torchvision) ==
        Names{"conv1_1.weight", "fc6.weight", "RCNN_top.0.weight"});
  CHECK(translated({}, NameScheme::caffe).empty());
}

TEST_CASE("names: other networks are refused by name") {
  check_error(
      [] {
        scheme_names({"features.0.weight", "features.1.weight", "features.1.running_mean"}, "f.pth");
      },
      ErrorCode::unsupported, {"f.pth", "features.1.running_mean", "batch normalisation"});
  check_error(
      [] {
        scheme_names(weights("RCNN_base.", {0, 4}), "f.pth");
      },
      ErrorCode::unsupported, {"RCNN_base.4 follows RCNN_base.0"});
  check_error(
      [] {
        scheme_names(weights("features.", {0, 1}), "f.pth");
      },
      ErrorCode::unsupported, {"features.1"});
  check_error([] { scheme_names(weights("features.", {3}), "f.pth"); }, ErrorCode::unsupported,
              {"features.3"});
}

TEST_CASE("names: a head alone, and names that are only a number") {
  using Names = std::vector<std::string>;
  CHECK(translated({"classifier.0.weight", "0.weight"}, NameScheme::torchvision) ==
        Names{"fc6.weight", "0.weight"});
  CHECK(translated({"RCNN_top.0.bias", "7.bias"}, NameScheme::jwyang) == Names{"fc6.bias", "7.bias"});
}
