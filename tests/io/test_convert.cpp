#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "caffe_wire.h"
#include "catch.h"
#include "graph/dtype.h"
#include "model_io/class_list.h"
#include "model_io/convert/convert.h"
#include "model_io/convert/implied.h"
#include "model_io/model_file.h"
#include "scratch.h"

using namespace frcnn;
using scratch::check_error;
using scratch::Folder;
using test::CaffeModel;
using test::Wire;
using test::ZfForm;

namespace {

// Sources in a folder of their own, converted to `model`.
struct Workshop {
  Folder folder;
  ConvertOptions options;
  Workshop() { options.destination = folder / "model.safetensors"; }
  void source(const std::string& name, const std::string& bytes) {
    scratch::write(folder / name, bytes);
    options.sources.push_back(folder / name);
  }
  ConversionResult convert() const { return frcnn::convert(options); }
  std::shared_ptr<const Model> model() const { return load_model(options.destination); }
};

std::vector<float> values(const Weight& weight) {
  std::vector<float> out(static_cast<std::size_t>(weight.view.shape.elements()));
  to_f32(weight.view, out.data());
  return out;
}

bool any_holds(const std::vector<std::string>& list, const std::string& part) {
  for (const std::string& line : list)
    if (line.find(part) != std::string::npos) return true;
  return false;
}

void check_zf_weights(const Model& model, const ZfForm& form) {
  const auto check = [&](const std::string& layer, const std::vector<std::int64_t>& shape) {
    INFO(layer);
    CHECK(values(model.weights.at(layer + ".weight")) == CaffeModel::weights(layer, shape));
    CHECK(values(model.weights.at(layer + ".bias")) == CaffeModel::biases(layer, shape[0]));
  };
  check("conv1", {8, 3, 7, 7});
  check("conv2", {6, 8, 5, 5});
  check("conv5", {4, 5, 3, 3});
  check(form.rpn_conv, {7, 4, 3, 3});
  check("rpn_cls_score", {2 * form.anchors, 7, 1, 1});
  check("fc6", {10, 16});
  check("fc7", {10, 10});
  check("bbox_pred", {4 * form.classes, 10});
}

// The same network as text.
std::string zf_prototxt(const std::string& conv2 = "num_output: 6 kernel_size: 5 pad: 2 stride: 2",
                        const std::string& scales = "8, 16, 32") {
  const auto conv = [](const std::string& name, const std::string& bottom, const std::string& params) {
    return "layer { name: '" + name + "' type: 'Convolution' bottom: '" + bottom + "' top: '" + name +
           "' convolution_param { " + params + " } }\n";
  };
  const auto in_place = [](const std::string& name, const std::string& type, const std::string& blob,
                           const std::string& more = "") {
    return "layer { name: '" + name + "' type: '" + type + "' bottom: '" + blob + "' top: '" + blob + "' " +
           more + "}\n";
  };
  const std::string lrn =
      "lrn_param { local_size: 3 alpha: 0.00005 beta: 0.75 norm_region: WITHIN_CHANNEL } }\n";
  const std::string pool = "pooling_param { kernel_size: 3 stride: 2 pad: 1 pool: MAX } }\n";
  const std::string drop = "dropout_param { dropout_ratio: 0.5 scale_train: false } ";
  std::string text = "name: 'tiny' input: 'data' input: 'im_info'\n";
  text += conv("conv1", "data", "num_output: 8 kernel_size: 7 pad: 3 stride: 2") +
          in_place("relu1", "ReLU", "conv1");
  text += "layer { name: 'norm1' type: 'LRN' bottom: 'conv1' top: 'norm1' " + lrn;
  text += "layer { name: 'pool1' type: 'Pooling' bottom: 'norm1' top: 'pool1' " + pool;
  text += conv("conv2", "pool1", conv2) + in_place("relu2", "ReLU", "conv2");
  text += "layer { name: 'norm2' type: 'LRN' bottom: 'conv2' top: 'norm2' " + lrn;
  text += "layer { name: 'pool2' type: 'Pooling' bottom: 'norm2' top: 'pool2' " + pool;
  text += conv("conv3", "pool2", "num_output: 5 kernel_size: 3 pad: 1") + in_place("relu3", "ReLU", "conv3");
  text += conv("conv4", "conv3", "num_output: 5 kernel_size: 3 pad: 1") + in_place("relu4", "ReLU", "conv4");
  text += conv("conv5", "conv4", "num_output: 4 kernel_size: 3 pad: 1") + in_place("relu5", "ReLU", "conv5");
  text += conv("rpn_conv1", "conv5", "num_output: 7 kernel_size: 3 pad: 1") +
          in_place("rpn_relu1", "ReLU", "rpn_conv1");
  text += conv("rpn_cls_score", "rpn_conv1", "kernel_size: 1") +
          conv("rpn_bbox_pred", "rpn_conv1", "kernel_size: 1");
  text +=
      "layer { name: 'proposal' type: 'Python' top: 'rois' bottom: 'im_info' python_param { layer: "
      "'ProposalLayer' "
      "param_str: \"'feat_stride': 16\\n'scales': !!python/tuple [" +
      scales + "]\" } }\n";
  text +=
      "layer { name: 'roi_pool_conv5' type: 'ROIPooling' bottom: 'conv5' bottom: 'rois' top: "
      "'roi_pool_conv5' "
      "roi_pooling_param { pooled_w: 2 pooled_h: 2 spatial_scale: 0.0625 } }\n";
  for (const std::string n : {"6", "7"})
    text += "layer { name: 'fc" + n + "' type: 'InnerProduct' bottom: '" +
            (n == "6" ? "roi_pool_conv5" : "fc6") + "' top: 'fc" + n +
            "' inner_product_param { num_output: 10 } }\n" + in_place("relu" + n, "ReLU", "fc" + n) +
            in_place("drop" + n, "Dropout", "fc" + n, drop);
  return text +
         "layer { name: 'cls_score' type: 'InnerProduct' bottom: 'fc7' top: 'cls_score' }\n"
         "layer { name: 'bbox_pred' type: 'InnerProduct' bottom: 'fc7' top: 'bbox_pred' }\n";
}

// The tensors of a model file as plain safetensors, without our metadata; `change` sees each before it is
// written.
template <typename Change>
void strip(const std::string& model, const std::string& to, const Change& change) {
  const auto file = SafetensorsFile::open(model);
  std::vector<StoredTensor> tensors(file->tensors().begin(), file->tensors().end());
  change(tensors);
  write_safetensors(to, tensors, {});
}

}  // namespace

TEST_CASE("convert: a caffemodel with its parameters needs nothing else") {
  for (const bool alternating : {false, true}) {
    ZfForm form;
    if (!alternating)
      form = {"rpn_conv/3x3", "rpn/output", 12, 3,
              "'feat_stride': 16 \n'scales': !!python/tuple [3, 8, 12, 16]"};
    Workshop w;
    w.source("zf.caffemodel", test::zf_model(form).net.bytes);
    const ConversionResult result = w.convert();
    CHECK(result.assumed.empty());
    CHECK(result.sources.at(0).format == "caffemodel");
    REQUIRE(result.tensors.size() == 24);
    CHECK(result.tensors[0].source == "conv1 blob 0");
    CHECK(result.tensors[0].name == "conv1.weight");
    CHECK(result.tensors.back().name == "bbox_pred.bias");
    CHECK(result.bytes == std::filesystem::file_size(w.options.destination));
    const auto model = w.model();
    check_zf_weights(*model, form);
    const ModelConfig& c = model->config;
    CHECK(config_to_json(c) == config_to_json(result.config));
    CHECK(c.kind == ModelKind::detector);
    CHECK(c.name == "tiny");
    CHECK(c.names.rpn_conv == form.rpn_conv);
    CHECK(c.names.rpn_top == form.rpn_top);
    CHECK(c.names.roi_pool == "roi_pool_conv5");
    CHECK(c.anchor_scales ==
          (alternating ? std::vector<double>{8, 16, 32} : std::vector<double>{3, 8, 12, 16}));
    CHECK(c.pooled_h == 2);
    CHECK(c.spatial_scale == 0.0625);
    CHECK(c.dropout_test_scale == 0.5);
    REQUIRE(c.backbone.size() == 9);
    CHECK(c.backbone[1].lrn.region == LrnRegion::within_channel);
    CHECK(c.backbone[3].stride == 2);
    CHECK(c.classes.size() == static_cast<std::size_t>(form.classes));
    CHECK(c.classes[1] == "class1");
  }
}

TEST_CASE("convert: caffemodel, prototxt and safetensors make the same file") {
  Workshop with_parameters, with_prototxt, from_tensors;
  with_parameters.source("zf.caffemodel", test::zf_model().net.bytes);
  with_parameters.convert();
  const std::string wanted = scratch::read(with_parameters.options.destination);

  CaffeModel bare("another name");
  bare.parameters = false;
  test::add_zf_backbone(bare);
  test::add_zf_heads(bare, {});
  with_prototxt.source("zf.caffemodel", bare.net.bytes);
  scratch::write(with_prototxt.folder / "zf.prototxt", zf_prototxt());
  with_prototxt.options.prototxt = with_prototxt.folder / "zf.prototxt";
  with_prototxt.convert();
  CHECK(scratch::read(with_prototxt.options.destination) == wanted);

  strip(with_parameters.options.destination, from_tensors.folder / "t.safetensors",
        [](auto& tensors) { std::reverse(tensors.begin(), tensors.end()); });
  from_tensors.options.sources = {from_tensors.folder / "t.safetensors"};
  from_tensors.options.prototxt = with_prototxt.options.prototxt;
  CHECK(from_tensors.convert().sources.at(0).format == "safetensors");
  CHECK(scratch::read(from_tensors.options.destination) == wanted);

  // Names imply ZF; the anchors and the mean must be given.
  from_tensors.options.prototxt.clear();
  std::filesystem::remove(from_tensors.options.destination);
  check_error(
      [&] { from_tensors.convert(); }, ErrorCode::bad_model,
      {"t.safetensors", "--prototxt", "--set anchor_scales=", "--set anchor_ratios=", "--set pixel_mean="});
  CHECK_FALSE(std::filesystem::exists(from_tensors.options.destination));
  from_tensors.options.sets = {{"anchor_scales", "8,16,32"},
                               {"anchor_ratios", "0.5,1,2"},
                               {"pixel_mean", "102.9801,115.9465,122.7717"},
                               {"name", "tiny"}};
  const ConversionResult implied = from_tensors.convert();
  CHECK(implied.assumed.empty());
  CHECK(any_holds(implied.implied, "ZF"));
  CHECK(any_holds(implied.implied, "dropout_test_scale=0.5"));
  CHECK_FALSE(any_holds(implied.implied, "pixel_mean"));  // it was given
  CHECK(scratch::read(from_tensors.options.destination) == wanted);

  // The same from a caffemodel whose layers have no parameters.
  with_prototxt.options.prototxt.clear();
  check_error([&] { with_prototxt.convert(); }, ErrorCode::bad_model, {"anchor_scales", "anchor_ratios"});
  with_prototxt.options.sets = {{"anchor_scales", "8,16,32"}, {"anchor_ratios", "0.5,1,2"}, {"name", "tiny"}};
  with_prototxt.convert();
  CHECK(scratch::read(with_prototxt.options.destination) == wanted);
}

TEST_CASE("convert: alternating training's last file has no proposal layer, so its anchors must be given") {
  ZfForm form;
  form.proposal = false;
  Workshop w;
  w.source("final.caffemodel", test::zf_model(form).net.bytes);
  check_error([&] { w.convert(); }, ErrorCode::bad_model, {"anchor_scales", "--prototxt"});
  w.options.sets = {{"anchor_scales", "8,16,32"}, {"anchor_ratios", "0.5,1,2"}};
  w.convert();
  CHECK(w.model()->config.feat_stride == 16);
}

TEST_CASE("convert: V1 files of classifiers make backbones, fully connected blobs lose their leading ones") {
  CaffeModel m("ImageNet");
  m.old_format = true;
  test::add_zf_backbone(m);
  m.pool("pool5", "conv5", 3, 2, 1);
  m.fc("fc6", "pool5", 10, 16);
  m.relu("relu6", "fc6");
  m.fc("fc7", "fc6", 9, 10);
  m.fc("fc8", "fc7", 5, 9);
  m.layer("prob", "Softmax", {"fc8"}, {"prob"});
  Workshop w;
  w.source("v1.caffemodel", m.net.bytes);
  const ConversionResult result = w.convert();
  CHECK(result.sources.at(0).format == "caffemodel (V1 layers)");
  CHECK(any_holds(result.ignored, "fc8 blob 0 5x9"));
  CHECK(any_holds(result.ignored, "fc8 blob 1 5"));
  const auto model = w.model();
  CHECK(model->config.kind == ModelKind::backbone);
  CHECK(model->config.classes.empty());
  CHECK(model->config.backbone.size() == 9);
  CHECK(model->weights.at("fc6.weight").view.shape == Shape{10, 16});
  CHECK(model->weights.at("fc7.bias").view.shape == Shape{9});
  CHECK(values(model->weights.at("fc6.weight")) == CaffeModel::weights("fc6", {10, 16}));
  CHECK_FALSE(model->weights.has("fc8.weight"));
  w.options.classes = "voc";
  check_error([&] { w.convert(); }, ErrorCode::invalid_argument, {"backbone"});
}

TEST_CASE("convert: missing, unknown and mis-shaped tensors are all named at once") {
  ZfForm form;
  form.head = false;
  CaffeModel m("tiny");
  test::add_zf_backbone(m);
  test::add_zf_heads(m, form);
  m.conv("conv9", "conv5", "conv9", 2, 4, 3, 1, 1);
  m.fc("cls_score", "fc7", 4, 10);
  Workshop w;
  w.source("broken.caffemodel", m.net.bytes);
  w.options.sets = {{"dropout_test_scale", "0.5"}};
  check_error([&] { w.convert(); }, ErrorCode::bad_model,
              {"broken.caffemodel", "fc6.weight", "fc7.bias", "bbox_pred.weight", "conv9.weight"});

  Workshop shaped;
  shaped.source("a.caffemodel", test::zf_model().net.bytes);
  shaped.convert();
  static const std::vector<float> wrong(3 * 4);
  strip(shaped.options.destination, shaped.folder / "t.safetensors", [](auto& tensors) {
    for (auto& t : tensors)
      if (t.name == "fc7.weight") t = {"fc7.weight", DType::f32, {3, 4}, wrong.data(), wrong.size() * 4};
  });
  scratch::write(shaped.folder / "n.prototxt", zf_prototxt());
  shaped.options.sources = {shaped.folder / "t.safetensors"};
  shaped.options.prototxt = shaped.folder / "n.prototxt";
  check_error([&] { shaped.convert(); }, ErrorCode::bad_model, {"fc7.weight", "3x4"});
}

TEST_CASE("convert: a prototxt that does not fit is refused with both sizes") {
  Workshop w;
  w.source("zf.caffemodel", test::zf_model().net.bytes);
  w.options.prototxt = w.folder / "n.prototxt";
  scratch::write(w.options.prototxt, zf_prototxt("num_output: 9 kernel_size: 3 pad: 1"));
  check_error([&] { w.convert(); }, ErrorCode::bad_model, {"conv2", "9 outputs and a 3x3 kernel", "6x8x5x5"});
  scratch::write(w.options.prototxt, zf_prototxt("num_output: 6 kernel_size: 5 pad: 2 stride: 2", "8, 16"));
  check_error([&] { w.convert(); }, ErrorCode::bad_model,
              {"3 ratios x 2 scales make 6 anchors", "18 outputs for 9"});
  scratch::write(w.options.prototxt, "layer { name: 3 }");
  check_error([&] { w.convert(); }, ErrorCode::bad_file, {"n.prototxt", "line 1"});
  w.options.prototxt = w.folder / "absent.prototxt";
  check_error([&] { w.convert(); }, ErrorCode::io, {"absent.prototxt"});
  w.options.prototxt = w.options.sources[0];
  check_error([&] { w.convert(); }, ErrorCode::bad_file, {"zf.caffemodel", "not text"});
  CHECK_FALSE(std::filesystem::exists(w.options.destination));
}

TEST_CASE("convert: class lists") {
  ZfForm form;
  form.classes = 3;
  Workshop w;
  w.source("zf.caffemodel", test::zf_model(form).net.bytes);
  w.options.classes = w.folder / "names.txt";
  for (const char* text :
       {"cat\nbig dog\n", "__background__\r\n cat \r\nbig dog", "background\ncat\n\nbig dog\n\n"}) {
    scratch::write(w.options.classes, text);
    CHECK(w.convert().config.classes == std::vector<std::string>{"__background__", "cat", "big dog"});
  }
  scratch::write(w.options.classes, "cat\ncat\n");
  check_error([&] { w.convert(); }, ErrorCode::bad_file, {"names.txt", "cat", "twice"});
  scratch::write(w.options.classes, "\n\n");
  check_error([&] { w.convert(); }, ErrorCode::bad_file, {"names.txt"});
  scratch::write(w.options.classes, "a\nb\nc\n");
  check_error([&] { w.convert(); }, ErrorCode::bad_model, {"4 names", "3 classes"});
  w.options.classes = "voc";
  check_error([&] { w.convert(); }, ErrorCode::bad_model, {"21 names", "3 classes"});
  w.options.classes = "coco";
  check_error([&] { w.convert(); }, ErrorCode::bad_model, {"81 names"});
  w.options.classes = w.folder / "absent.txt";
  check_error([&] { w.convert(); }, ErrorCode::io, {"absent.txt"});
  w.options.classes.clear();
  w.options.sets = {{"classes", "x,y"}};
  CHECK(w.convert().config.classes == std::vector<std::string>{"__background__", "x", "y"});
  w.options.sets = {{"classes", "x,y,z"}};
  check_error([&] { w.convert(); }, ErrorCode::bad_model, {"cls_score.weight", "4x", "3x10"});
  form.classes = 21;
  scratch::write(w.options.sources[0], test::zf_model(form).net.bytes);
  w.options.sets.clear();
  w.options.classes = "voc";
  CHECK(w.convert().config.classes.at(20) == "tvmonitor");
  w.options.classes.clear();
  CHECK(w.convert().config.classes.at(20) == "class20");  // 21 classes alone do not make it PASCAL VOC
}

TEST_CASE("convert: types of the stored weights") {
  Workshop w;
  w.source("zf.caffemodel", test::zf_model().net.bytes);
  const std::vector<float> weights = CaffeModel::weights("fc6", {10, 16});
  for (const DType dtype : {DType::f16, DType::bf16, DType::f32}) {
    w.options.dtype = dtype;
    const ConversionResult result = w.convert();
    const auto model = w.model();
    const Weight& fc6 = model->weights.at("fc6.weight");
    CHECK(fc6.view.dtype == dtype);
    CHECK(model->weights.at("fc6.bias").view.dtype == DType::f32);
    std::vector<std::byte> wanted(weights.size() * size_of(dtype));
    from_f32(weights.data(), weights.size(), dtype, wanted.data());
    CHECK(std::memcmp(fc6.view.data, wanted.data(), wanted.size()) == 0);
    CHECK(result.tensors[0].dtype == dtype);
    CHECK(result.tensors[0].source_dtype == DType::f32);
  }
  // Converting the half file again keeps its type, and its conventions but for what is set.
  Workshop again;
  w.options.dtype = DType::f16;
  w.options.sets = {{"rpn_nms", "0.6"}};
  w.convert();
  again.options.sources = {w.options.destination};
  again.options.sets = {{"score_threshold", "0.25"}};
  const ConversionResult result = again.convert();
  CHECK(result.sources.at(0).format == "frcnn model");
  CHECK(result.implied.empty());
  CHECK(result.config.rpn_nms == 0.6);
  CHECK(result.config.score_threshold == 0.25);
  CHECK(again.model()->weights.at("fc6.weight").view.dtype == DType::f16);
  // And onto itself.
  again.options.sources = {again.options.destination};
  again.options.sets.clear();
  CHECK(again.convert().config.score_threshold == 0.25);
  check_zf_weights(*load_model([&] {
    w.options.dtype.reset();
    w.convert();
    return w.options.destination;
  }()),
                   {});
}

TEST_CASE("convert: doubles become floats") {
  CaffeModel m("net");
  Wire weight, bias;
  std::vector<double> doubles(2 * 3 * 3 * 3, 0.1);
  weight.add(7, Wire().packed_numbers(1, {2, 3, 3, 3})).packed(8, doubles);
  bias.add(7, Wire().packed_numbers(1, {2})).packed(8, std::vector<double>{1e-3, -2});
  m.layer("conv1_1", "Convolution", {"data"}, {"conv1_1"}, {weight, bias}, 106,
          Wire().number(3, 1).number(4, 3));
  m.relu("relu1_1", "conv1_1");
  Workshop w;
  w.source("double.caffemodel", m.net.bytes);
  CHECK(w.convert().tensors[0].source_dtype == DType::f64);
  CHECK(values(w.model()->weights.at("conv1_1.weight")) == std::vector<float>(54, 0.1f));
  CHECK(values(w.model()->weights.at("conv1_1.bias")) == std::vector<float>{1e-3f, -2});
}

TEST_CASE("convert: NaN and infinite weights, and weights too large for the type") {
  const auto model_with = [](float value, bool as_double = false, double wide = 0) {
    CaffeModel m("net");
    std::vector<float> weights(54, 0.5f);
    weights[1 * 27 + 2 * 9 + 0 * 3 + 1] = value;
    Wire weight = test::blob({2, 3, 3, 3}, weights);
    if (as_double) {
      std::vector<double> doubles(weights.begin(), weights.end());
      doubles[0] = wide;
      weight = Wire().add(7, Wire().packed_numbers(1, {2, 3, 3, 3})).packed(8, doubles);
    }
    m.layer("conv1_1", "Convolution", {"data"}, {"c"}, {weight, test::blob({2}, {0, 0})}, 106,
            Wire().number(3, 1).number(4, 3));
    return m.net.bytes;
  };
  constexpr float nan = std::numeric_limits<float>::quiet_NaN(),
                  infinity = std::numeric_limits<float>::infinity();
  for (const float bad : {nan, infinity, -infinity}) {
    Workshop w;
    w.source("bad.caffemodel", model_with(bad));
    check_error([&] { w.convert(); }, ErrorCode::numeric,
                {"bad.caffemodel", "conv1_1.weight[1,2,0,1]", "--allow-nonfinite"});
    CHECK(w.folder.files() == 1);  // the source alone
    w.options.allow_nonfinite = true;
    w.convert();
    const float kept = values(w.model()->weights.at("conv1_1.weight"))[46];
    CHECK((std::isnan(bad) ? std::isnan(kept) : kept == bad));
  }
  Workshop large;
  large.source("large.caffemodel", model_with(70000));
  large.convert();
  large.options.dtype = DType::bf16;
  large.convert();
  large.options.dtype = DType::f16;
  large.options.allow_nonfinite = true;  // it is finite, so the flag does not excuse it
  check_error([&] { large.convert(); }, ErrorCode::numeric, {"conv1_1.weight[1,2,0,1]", "too large for f16"});
  Workshop wide;
  wide.source("wide.caffemodel", model_with(0, true, 1e300));
  check_error([&] { wide.convert(); }, ErrorCode::numeric, {"conv1_1.weight[0,0,0,0]", "too large for f32"});
}

TEST_CASE("convert: later files add to and replace earlier ones") {
  ZfForm rpn_only;
  rpn_only.head = false;
  CaffeModel first("rpn");
  test::add_zf_backbone(first);
  test::add_zf_heads(first, rpn_only);
  Workshop w;
  w.source("rpn.caffemodel", first.net.bytes);
  CaffeModel second("fast");  // its head, and other numbers in conv5
  second.layer(
      "conv5", "Convolution", {"data"}, {"conv5"},
      {test::blob({4, 5, 3, 3}, std::vector<float>(180, 2.0f)), test::blob({4}, std::vector<float>(4, 3.0f))},
      106, Wire().number(3, 1).number(4, 3));
  second.relu("relu5", "conv5");
  second.layer("roi_pool_conv5", "ROIPooling", {"conv5", "rois"}, {"roi_pool_conv5"}, {}, 8266711,
               Wire().number(1, 2).number(2, 2).real(3, 0.0625f));
  second.fc("fc6", "roi_pool_conv5", 10, 16);
  second.relu("relu6", "fc6");
  second.fc("fc7", "fc6", 10, 10);
  second.relu("relu7", "fc7");
  second.fc("cls_score", "fc7", 4, 10);
  second.fc("bbox_pred", "fc7", 16, 10);
  w.source("fast.caffemodel", second.net.bytes);
  w.options.prototxt = w.folder / "n.prototxt";
  scratch::write(w.options.prototxt, zf_prototxt());
  const ConversionResult result = w.convert();
  CHECK(result.sources.size() == 2);
  const auto model = w.model();
  CHECK(values(model->weights.at("conv5.weight")) == std::vector<float>(180, 2.0f));
  CHECK(values(model->weights.at("conv4.weight")) == CaffeModel::weights("conv4", {5, 5, 3, 3}));
  CHECK(values(model->weights.at("fc7.weight")) == CaffeModel::weights("fc7", {10, 10}));
}

TEST_CASE("convert: a layer without a bias gets zeros") {
  CaffeModel m("net");
  m.layer("conv1_1", "Convolution", {"data"}, {"c"}, {test::blob({2, 3, 3, 3}, std::vector<float>(54, 1.0f))},
          106, Wire().number(2, 0).number(3, 1).number(4, 3));
  Workshop w;
  w.source("nobias.caffemodel", m.net.bytes);
  const ConversionResult result = w.convert();
  REQUIRE(result.tensors.size() == 2);
  CHECK(result.tensors[1].source.empty());
  CHECK(values(w.model()->weights.at("conv1_1.bias")) == std::vector<float>(2, 0.0f));
}

TEST_CASE("convert: formats are told from content, and foreign ones say what to do") {
  const auto check = [](const std::string& bytes, ErrorCode code, const std::string& part) {
    Workshop w;
    w.source("model.caffemodel", bytes);
    check_error([&] { w.convert(); }, code, {"model.caffemodel", part});
    CHECK(w.folder.files() == 1);
  };
  check("", ErrorCode::bad_file, "empty");
  check("PK\x03\x04 zip", ErrorCode::bad_file, "zip archive");
  check(std::string("\x80\x02\x8a\x0a", 4) +
            "l\xfc\x9c"
            "F\xf9 j\xa8P\x19.",
        ErrorCode::bad_file, "the pickle ends");
  check(std::string(257, 'x') + "ustar " + std::string(100, 'y'), ErrorCode::unsupported, "tar");
  check("\x89HDF\r\n\x1a\n....", ErrorCode::unsupported, "HDF5");
  check("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ErrorCode::bad_file, "Git LFS");
  check(zf_prototxt(), ErrorCode::bad_file, "--prototxt");
  check("<html><body>404</body></html>", ErrorCode::bad_file, "text");
  check(std::string(100, '\0'), ErrorCode::bad_file, "byte 0");
  check(std::string("\xff\xff\xff\xff\xff\xff\xff\x7f{\"a\":1}", 15), ErrorCode::bad_file, "header");
  std::string zf = test::zf_model().net.bytes;
  check(zf.substr(0, zf.size() / 2), ErrorCode::bad_file, "byte ");
  Workshop w;  // extensions mean nothing
  w.source("model.pth", zf);
  w.convert();
  w.options.sources = {w.folder.path()};
  check_error([&] { w.convert(); }, ErrorCode::io, {w.folder.path()});
  w.options.sources = {w.folder / "absent"};
  check_error([&] { w.convert(); }, ErrorCode::io, {"absent"});
  w.options.sources = {w.folder / "model.pth"};
  w.options.sets = {{"no_such_key", "1"}};
  check_error([&] { w.convert(); }, ErrorCode::invalid_argument, {"no_such_key", "anchor_scales"});
  w.options.sets.clear();
  w.options.destination = w.folder / "no/such/folder/m.safetensors";
  check_error([&] { w.convert(); }, ErrorCode::io, {"no/such/folder"});
}

TEST_CASE("convert: a published model's shapes bring its conventions, printed as assumed") {
  // ZF of PASCAL VOC, 236 MB as fp32: all zeros, so that the file is a hole.
  Workshop w;
  ModelConfig config;
  std::vector<StoredTensor> tensors;
  const std::vector<std::byte> zeros(std::size_t{4096} * 9216 * 2);
  const auto add = [&](const std::string& layer, const std::vector<std::int64_t>& shape) {
    tensors.push_back({layer + ".weight", DType::f16, shape, zeros.data(), test::product(shape) * 2});
    tensors.push_back(
        {layer + ".bias", DType::f16, {shape[0]}, zeros.data(), static_cast<std::size_t>(shape[0]) * 2});
  };
  add("conv1", {96, 3, 7, 7});
  add("conv2", {256, 96, 5, 5});
  add("conv3", {384, 256, 3, 3});
  add("conv4", {384, 384, 3, 3});
  add("conv5", {256, 384, 3, 3});
  add("rpn_conv1", {256, 256, 3, 3});
  add("rpn_cls_score", {18, 256, 1, 1});
  add("rpn_bbox_pred", {36, 256, 1, 1});
  add("fc6", {4096, 9216});
  add("fc7", {4096, 4096});
  add("cls_score", {21, 4096});
  add("bbox_pred", {84, 4096});
  write_safetensors(w.folder / "zf.safetensors", tensors, {});
  w.options.sources = {w.folder / "zf.safetensors"};
  const ConversionResult result = w.convert();
  for (const char* key :
       {"anchor_scales=8,16,32", "anchor_ratios=0.5,1,2", "pixel_mean=102.9801", "classes=aeroplane"})
    CHECK(any_holds(result.assumed, key));
  CHECK(any_holds(result.assumed, "ZF of PASCAL VOC"));
  CHECK(result.config.classes == voc_classes());
  CHECK(result.config.pooled_h == 6);
  CHECK(result.config.dropout_test_scale == 0.5);
  CHECK(result.config.names.rpn_top == "rpn_conv1");
}
