#include <string>

#include "catch.h"
#include "frcnn/error.h"
#include "model_io/convert/caffe_net.h"
#include "model_io/convert/param_str.h"

using namespace frcnn;

namespace {

// A small network whose parts a test can replace. In the train form a Python layer feeds it, and targets,
// losses and Silence layers hang off it.
struct Parts {
  std::string input = "input: \"data\" input: \"im_info\"\n";
  std::string conv2 =
      "layer { name: 'conv2' type: 'Convolution' bottom: 'pool1' top: 'conv2' "
      "convolution_param { num_output: 6 kernel_size: 3 pad: 1 } }\n"
      "layer { name: 'relu2' type: 'ReLU' bottom: 'conv2' top: 'conv2' }\n";
  std::string pool = "pool: MAX kernel_size: 3 stride: 2 pad: 1";
  std::string rpn = "kernel_size: 3 pad: 1 stride: 1";
  std::string features = "conv2";
  std::string after_rpn;
  std::string proposal = "'feat_stride': 4";
  std::string drop6 = "dropout_param { dropout_ratio: 0.4 scale_train: false }";
  std::string drop7 = "dropout_param { dropout_ratio: 0.4 scale_train: false }";
  std::string relu7 = "layer { name: 'relu7' type: 'ReLU' bottom: 'fc7' top: 'fc7' }\n";

  std::string text() const {
    return "name: 'net'\n" + input +
           "layer { name: 'conv1' type: 'Convolution' bottom: 'data' top: 'conv1' "
           "convolution_param { num_output: 4 kernel_size: 5 pad: 2 stride: 2 } }\n"
           "layer { name: 'relu1' type: 'ReLU' bottom: 'conv1' top: 'conv1' }\n"
           "layer { name: 'norm1' type: 'LRN' bottom: 'conv1' top: 'norm1' lrn_param { local_size: 5 alpha: "
           "0.0005 k: 2 } }\n"
           "layer { name: 'pool1' type: 'Pooling' bottom: 'norm1' top: 'pool1' pooling_param { " +
           pool + " } }\n" + conv2 + "layer { name: 'rpn_conv/3x3' type: 'Convolution' bottom: '" + features +
           "' top: 'rpn/output' "
           "convolution_param { num_output: 6 " +
           rpn +
           " } }\n"
           "layer { name: 'rpn_relu/3x3' type: 'ReLU' bottom: 'rpn/output' top: 'rpn/output' }\n"
           "layer { name: 'rpn_cls_score' type: 'Convolution' bottom: 'rpn/output' top: 'rpn_cls_score' "
           "convolution_param { num_output: 18 kernel_size: 1 } }\n"
           "layer { name: 'rpn_bbox_pred' type: 'Convolution' bottom: 'rpn/output' top: 'rpn_bbox_pred' "
           "convolution_param { num_output: 36 kernel_size: 1 } }\n" +
           after_rpn +
           "layer { name: 'proposal' type: 'Python' bottom: 'rpn_cls_prob_reshape' bottom: 'rpn_bbox_pred' "
           "bottom: 'im_info' "
           "top: 'rpn_rois' python_param { module: 'rpn.proposal_layer' layer: 'ProposalLayer' param_str: "
           "\"" +
           proposal +
           "\" } }\n"
           "layer { name: 'roi_pool5' type: 'ROIPooling' bottom: 'conv2' bottom: 'rois' top: 'pool5' "
           "roi_pooling_param { pooled_w: 3 pooled_h: 2 spatial_scale: 0.25 } }\n"
           "layer { name: 'fc6' type: 'InnerProduct' bottom: 'pool5' top: 'fc6' inner_product_param { "
           "num_output: 8 } }\n"
           "layer { name: 'relu6' type: 'ReLU' bottom: 'fc6' top: 'fc6' }\n"
           "layer { name: 'drop6' type: 'Dropout' bottom: 'fc6' top: 'fc6' " +
           drop6 +
           " }\n"
           "layer { name: 'fc7' type: 'InnerProduct' bottom: 'fc6' top: 'fc7' inner_product_param { "
           "num_output: 8 } }\n" +
           relu7 + "layer { name: 'drop7' type: 'Dropout' bottom: 'fc7' top: 'fc7' " + drop7 +
           " }\n"
           "layer { name: 'cls_score' type: 'InnerProduct' bottom: 'fc7' top: 'cls_score' "
           "inner_product_param { num_output: 3 } }\n"
           "layer { name: 'bbox_pred' type: 'InnerProduct' bottom: 'fc7' top: 'bbox_pred' "
           "inner_product_param { num_output: 12 } }\n";
  }
  NetFacts facts() const { return facts_of(parse_prototxt(text(), "n"), "n"); }
};

std::string failure(const Parts& parts, ErrorCode code = ErrorCode::unsupported) {
  try {
    parts.facts();
  } catch (const Error& error) {
    INFO(error.what());
    CHECK(error.code() == code);
    return error.what();
  }
  FAIL("nothing was thrown");
  return {};
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

void check_usual(const NetFacts& facts) {
  CHECK(facts.detector);
  CHECK(facts.has_parameters);
  REQUIRE(facts.backbone.size() == 4);
  CHECK(facts.backbone[0].name == "conv1");
  CHECK(facts.backbone[0].stride == 2);
  CHECK(facts.backbone[0].pad == 2);
  CHECK(facts.backbone[0].relu);
  CHECK(facts.backbone[1].kind == BackboneLayer::Kind::lrn);
  CHECK(facts.backbone[1].lrn.region == LrnRegion::across_channels);
  CHECK(facts.backbone[1].lrn.size == 5);
  CHECK(facts.backbone[1].lrn.k == 2);
  CHECK(facts.backbone[2].pool.kernel == 3);
  CHECK(facts.backbone[2].pool.pad == 1);
  CHECK(facts.backbone[2].pool.rounding == Rounding::ceil);
  CHECK(facts.backbone[3].name == "conv2");
  CHECK(facts.backbone[3].stride == 1);
  REQUIRE(facts.rpn);
  CHECK(facts.rpn->conv == "rpn_conv/3x3");
  CHECK(facts.rpn->top == "rpn/output");
  REQUIRE(facts.roi);
  CHECK(facts.roi->top == "pool5");
  CHECK(facts.roi->pooled_h == 2);
  CHECK(facts.roi->pooled_w == 3);
  CHECK(facts.roi->spatial_scale == 0.25);
  REQUIRE(facts.dropout_test_scale);
  CHECK(*facts.dropout_test_scale == Approx(0.6).epsilon(1e-6));
}

}  // namespace

TEST_CASE("caffe network: the test form") {
  const NetFacts facts = Parts().facts();
  check_usual(facts);
  REQUIRE(facts.anchors);
  CHECK(facts.anchors->feat_stride == 4);
  CHECK(facts.anchors->scales == std::vector<double>{8, 16, 32});
  CHECK(facts.anchors->ratios == std::vector<double>{0.5, 1, 2});
}

TEST_CASE("caffe network: the train form, as written and as saved with Split layers") {
  Parts parts;
  parts.input =
      "layer { name: 'input-data' type: 'Python' top: 'data' top: 'im_info' top: 'gt_boxes' "
      "python_param { module: 'roi_data_layer.layer' layer: 'RoIDataLayer' param_str: \"'num_classes': 21\" "
      "} }\n";
  parts.after_rpn =
      "layer { name: 'rpn-data' type: 'Python' bottom: 'rpn_cls_score' bottom: 'data' top: 'rpn_labels' "
      "python_param { layer: 'AnchorTargetLayer' param_str: \"'feat_stride': 4\" } }\n"
      "layer { name: 'rpn_loss_cls' type: 'SoftmaxWithLoss' bottom: 'rpn_cls_score' bottom: 'rpn_labels' "
      "top: 'loss' }\n"
      "layer { name: 'silence' type: 'Silence' bottom: 'rpn_bbox_pred' }\n";
  check_usual(parts.facts());

  parts.input += "layer { name: 'split1' type: 'Split' bottom: 'data' top: 'data_0' top: 'data_1' }\n";
  std::string saved = parts.text();
  const auto replace = [&](const std::string& from, const std::string& to) {
    const auto at = saved.find(from);
    REQUIRE(at != std::string::npos);
    saved.replace(at, from.size(), to);
  };
  replace("type: 'Convolution' bottom: 'data'", "type: 'Convolution' bottom: 'data_0'");
  replace("layer { name: 'rpn_conv/3x3' type: 'Convolution' bottom: 'conv2'",
          "layer { name: 'split2' type: 'Split' bottom: 'conv2' top: 'conv2_0' top: 'conv2_1' }\n"
          "layer { name: 'rpn_conv/3x3' type: 'Convolution' bottom: 'conv2_0'");
  replace("type: 'ROIPooling' bottom: 'conv2'", "type: 'ROIPooling' bottom: 'conv2_1'");
  check_usual(facts_of(parse_prototxt(saved, "n"), "n"));
}

TEST_CASE("caffe network: anchors from param_str") {
  Parts parts;
  parts.proposal = "'feat_stride': 8 \\n'scales': !!python/tuple [3, 8, 12, 16]\\n'ratios': [0.25, 4]";
  const NetFacts facts = parts.facts();
  CHECK(facts.anchors->feat_stride == 8);
  CHECK(facts.anchors->scales == std::vector<double>{3, 8, 12, 16});
  CHECK(facts.anchors->ratios == std::vector<double>{0.25, 4});
  parts.proposal = "'scales': [8]";
  CHECK(contains(failure(parts, ErrorCode::bad_file), "feat_stride"));
  parts.proposal = "'feat_stride': 16\\n'scales': []";
  CHECK(contains(failure(parts, ErrorCode::bad_file), "scales"));
  parts.proposal = "'feat_stride': 16\\n'scales': [8, -1]";
  CHECK(contains(failure(parts, ErrorCode::bad_file), "scales"));
  parts.proposal = "'feat_stride': 16\\n'min_size': 3";
  CHECK(contains(failure(parts), "min_size"));
}

TEST_CASE("param_str: forms and errors") {
  const auto numbers = [](const std::string& text) { return parse_param_str(text, "w").numbers; };
  CHECK(numbers("").empty());
  CHECK(numbers("{'a': 1, \"b\": [1, 2.5], c: (3,)}").at("b") == std::vector<double>{1, 2.5});
  CHECK(numbers("{'a': 1, \"b\": [1, 2.5], c: (3,)}").at("c") == std::vector<double>{3});
  CHECK(numbers("a: 1e-1 # why\r\nb:\n- 4\n- 8\nc: x y").at("b") == std::vector<double>{4, 8});
  CHECK(numbers("a: 1e-1 # why\r\nb:\n- 4\n- 8\nc: x y").at("a") == std::vector<double>{0.1});
  CHECK(numbers("c: word\nd: 2").at("c").empty());
  CHECK(numbers("'s': !!python/tuple\n  - 1\n  - 2").at("s") == std::vector<double>{1, 2});
  for (const char* bad : {"a", "a 1", "a: [1", "a: [1 2]", "a: [x]", "a: 1 2", "'a: 1", "{a: 1", "a: 1\na: 2",
                          ": 3", "a:", "a: 1}", "[1]", "a: (1]"}) {
    INFO(bad);
    try {
      numbers(bad);
      FAIL_CHECK("accepted");
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::bad_file);
      CHECK(contains(error.what(), "w: param_str, character"));
    }
  }
}

TEST_CASE("caffe network: what the engine cannot run is refused by name") {
  const auto with = [](auto change) {
    Parts parts;
    change(parts);
    return failure(parts);
  };
  const std::string conv =
      "layer { name: 'conv2' type: 'Convolution' bottom: 'pool1' top: 'conv2' convolution_param { "
      "num_output: 6 ";
  const std::string relu = " } }\nlayer { name: 'relu2' type: 'ReLU' bottom: 'conv2' top: 'conv2' }\n";
  CHECK(contains(with([&](Parts& p) { p.conv2 = conv + "kernel_size: 3 group: 2" + relu; }),
                 "conv2 (Convolution): group 2"));
  CHECK(contains(with([&](Parts& p) { p.conv2 = conv + "kernel_size: 3 dilation: 2" + relu; }), "conv2"));
  CHECK(contains(with([&](Parts& p) { p.conv2 = conv + "kernel_size: 3 stride_h: 2 stride_w: 1" + relu; }),
                 "conv2 (Convolution): stride 2x1"));
  CHECK(contains(with([](Parts& p) { p.pool = "pool: AVE kernel_size: 2"; }), "pool1 (Pooling)"));
  CHECK(contains(with([](Parts& p) { p.rpn = "kernel_size: 5 pad: 2"; }), "rpn_conv/3x3"));
  CHECK(contains(with([](Parts& p) { p.drop7 = ""; }), "fc7"));
  CHECK(contains(with([](Parts& p) { p.relu7 = ""; }), "fc7"));
  CHECK(contains(with([](Parts& p) { p.features = "pool1"; }), "roi_pool5 (ROIPooling): pools conv2"));
  CHECK(contains(with([&](Parts& p) {
                   p.conv2 =
                       "layer { name: 'add' type: 'Eltwise' bottom: 'pool1' bottom: 'norm1' top: 'conv2' }\n";
                 }),
                 "add (Eltwise)"));
  CHECK(contains(
      with([&](Parts& p) {
        p.conv2 = conv +
                  "kernel_size: 3 } }\nlayer { name: 'relu2' type: 'ReLU' relu_param { negative_slope: 0.1 " +
                  "} bottom: 'conv2' top: 'conv2' }\n";
      }),
      "relu2 (ReLU)"));
  CHECK(contains(with([](Parts& p) {
                   p.conv2 += "layer { name: 'drop2' type: 'Dropout' bottom: 'conv2' top: 'conv2' }\n";
                 }),
                 "drop2 (Dropout)"));

  Parts parts;
  parts.conv2 = conv + "pad: 1" + relu;
  CHECK(contains(failure(parts, ErrorCode::bad_file), "conv2 (Convolution): no kernel size"));
  parts = Parts();
  parts.pool = "pool: MAX kernel_size: 2 pad: 2";
  CHECK(contains(failure(parts, ErrorCode::bad_file), "pool1"));
  parts = Parts();
  parts.input = "";
  parts.conv2 =
      "layer { name: 'conv2' type: 'Convolution' bottom: 'nowhere' top: 'conv2' convolution_param { "
      "kernel_size: 3 } }\n";
  CHECK(contains(failure(parts, ErrorCode::bad_file), "nowhere"));
}

TEST_CASE("caffe network: a classifier gives its convolutions") {
  const CaffeNet net = parse_prototxt(R"(
name: 'c' input: 'data'
layers { name: 'conv1' type: CONVOLUTION bottom: 'data' top: 'conv1' convolution_param { kernel_size: 3 pad: 1 } }
layers { name: 'relu1' type: RELU bottom: 'conv1' top: 'conv1' }
layers { name: 'pool1' type: POOLING bottom: 'conv1' top: 'pool1' pooling_param { kernel_size: 2 stride: 2 } }
layers { name: 'conv2' type: CONVOLUTION bottom: 'pool1' top: 'conv2' convolution_param { kernel_size: 3 pad: 1 } }
layers { name: 'relu2' type: RELU bottom: 'conv2' top: 'conv2' }
layers { name: 'pool5' type: POOLING bottom: 'conv2' top: 'pool5' pooling_param { kernel_size: 2 stride: 2 } }
layers { name: 'fc6' type: INNER_PRODUCT bottom: 'pool5' top: 'fc6' inner_product_param { num_output: 4 } }
layers { name: 'prob' type: SOFTMAX bottom: 'fc6' top: 'prob' }
)",
                                      "c");
  const NetFacts facts = facts_of(net, "c");
  CHECK_FALSE(facts.detector);
  REQUIRE(facts.backbone.size() == 3);
  CHECK(facts.backbone[2].name == "conv2");
  CHECK(facts.backbone[2].relu);
  CHECK_FALSE(facts.rpn);
  CHECK_FALSE(facts.roi);
}
