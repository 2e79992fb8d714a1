// Checkpoints through the converter: names, conventions, folded inputs.
#include <sys/stat.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <future>
#include <string>

#include "catch.h"
#include "graph/dtype.h"
#include "model_io/convert/convert.h"
#include "model_io/convert/fold.h"
#include "model_io/model_file.h"
#include "scratch.h"
#include "torch_wire.h"

#include "caffe_wire.h"

using namespace frcnn;
using scratch::check_error;
using scratch::Folder;
using test::bytes_of;
using test::numbers;
using test::PickleBytes;
using test::WireTensor;

namespace {

void add(std::vector<WireTensor>& tensors, const std::string& layer, const std::vector<std::int64_t>& shape) {
  tensors.push_back({layer + ".weight",
                     shape,
                     {},
                     "",
                     "FloatStorage",
                     0,
                     -1,
                     bytes_of(numbers(test::product(shape), test::CaffeModel::seed(layer)))});
  tensors.push_back(
      {layer + ".bias",
       {shape[0]},
       {},
       "",
       "FloatStorage",
       0,
       -1,
       bytes_of(numbers(static_cast<std::size_t>(shape[0]), test::CaffeModel::seed(layer) + 1))});
}

struct Form {
  std::int64_t anchors = 9, classes = 3;
  bool agnostic = false;
  std::string pooling_mode = "pool";  // empty: not recorded
};

// Two groups of one convolution each stand for VGG.
std::string jwyang(const Form& form) {
  std::vector<WireTensor> tensors;
  add(tensors, "RCNN_base.0", {4, 3, 3, 3});
  add(tensors, "RCNN_base.3", {5, 4, 3, 3});
  add(tensors, "RCNN_rpn.RPN_Conv", {6, 5, 3, 3});
  add(tensors, "RCNN_rpn.RPN_cls_score", {2 * form.anchors, 6, 1, 1});
  add(tensors, "RCNN_rpn.RPN_bbox_pred", {4 * form.anchors, 6, 1, 1});
  add(tensors, "RCNN_top.0", {8, 5 * 49});
  add(tensors, "RCNN_top.3", {8, 8});
  add(tensors, "RCNN_cls_score", {form.classes, 8});
  add(tensors, "RCNN_bbox_pred", {form.agnostic ? 4 : 4 * form.classes, 8});
  PickleBytes p;
  p.proto().raw("}(").text("session").integer(1).text("model");
  test::add_state_dict(p, tensors);
  if (!form.pooling_mode.empty()) p.text("pooling_mode").text(form.pooling_mode);
  p.text("class_agnostic").boolean(form.agnostic).raw("u.");
  return test::zip_bytes(test::torch_members(p.bytes, tensors));
}

struct Workshop {
  Folder folder;
  ConvertOptions options;
  explicit Workshop(const std::string& bytes) {
    options.destination = folder / "model.safetensors";
    options.sources = {folder / "source.pth"};
    scratch::write(options.sources[0], bytes);
  }
  ConversionResult convert() const { return frcnn::convert(options); }
  std::shared_ptr<const Model> model() const { return load_model(options.destination); }
};

std::vector<float> values(const Model& model, const std::string& name) {
  const Weight& weight = model.weights.at(name);
  std::vector<float> out(static_cast<std::size_t>(weight.view.shape.elements()));
  to_f32(weight.view, out.data());
  return out;
}

bool any_holds(const std::vector<std::string>& list, const std::string& part) {
  for (const std::string& line : list)
    if (line.find(part) != std::string::npos) return true;
  return false;
}

std::string torchvision(const std::vector<WireTensor>& more = {}) {
  std::vector<WireTensor> tensors;
  add(tensors, "features.0", {4, 3, 3, 3});
  add(tensors, "features.3", {5, 4, 3, 3});
  tensors.insert(tensors.end(), more.begin(), more.end());
  return test::torch_zip(tensors);
}

// A 3x3 convolution with zero padding of a [3, h, w] image, in double.
std::vector<double> convolve(const std::vector<float>& weight, const std::vector<float>& bias,
                             const std::vector<double>& image, int h, int w) {
  std::vector<double> out;
  for (std::size_t o = 0; o < bias.size(); ++o)
    for (int y = 0; y < h; ++y)
      for (int x = 0; x < w; ++x) {
        double sum = bias[o];
        for (int c = 0; c < 3; ++c)
          for (int ky = -1; ky <= 1; ++ky)
            for (int kx = -1; kx <= 1; ++kx) {
              if (y + ky < 0 || y + ky >= h || x + kx < 0 || x + kx >= w) continue;
              const std::size_t tap =
                  (o * 3 + static_cast<std::size_t>(c)) * 9 + static_cast<std::size_t>((ky + 1) * 3 + kx + 1);
              sum += weight[tap] * image[static_cast<std::size_t>((c * h + y + ky) * w + x + kx)];
            }
        out.push_back(sum);
      }
  return out;
}

}  // namespace

TEST_CASE("convert: a checkpoint of jwyang's brings its conventions") {
  for (const bool agnostic : {false, true})
    for (const std::int64_t anchors : {9, 12}) {
      INFO(anchors << " anchors, agnostic " << agnostic);
      Workshop w(jwyang({anchors, 3, agnostic, "pool"}));
      const ConversionResult result = w.convert();
      CHECK(result.sources.at(0).format == "PyTorch (zip)");
      const ModelConfig& config = result.config;
      CHECK(config.kind == ModelKind::detector);
      CHECK(config.anchor_scales ==
            (anchors == 9 ? std::vector<double>{8, 16, 32} : std::vector<double>{4, 8, 16, 32}));
      CHECK(config.rpn_min_size == 0);
      CHECK(config.roi_op == RoiOp::pool);
      CHECK(config.pooled_h == 7);
      CHECK(config.dropout_test_scale == 1);
      CHECK(config.backbone.at(1).pool.rounding == Rounding::floor);
      CHECK(config.backbone.at(2).name == "conv2_1");
      CHECK(any_holds(result.implied, "bbox_pred times 0.1,0.1,0.2,0.2"));
      CHECK(result.tensors[0].source == "RCNN_base.0.weight");
      const auto model = w.model();
      CHECK(values(*model, "fc7.bias") == numbers(8, test::CaffeModel::seed("RCNN_top.3") + 1));
      const std::int64_t outputs = agnostic ? 4 : 12;
      std::vector<float> wanted =
          numbers(static_cast<std::size_t>(outputs) * 8, test::CaffeModel::seed("RCNN_bbox_pred"));
      for (std::size_t i = 0; i < wanted.size(); ++i)
        wanted[i] = static_cast<float>(static_cast<double>(wanted[i]) * (i / 8 % 4 < 2 ? 0.1 : 0.2));
      CHECK(values(*model, "bbox_pred.weight") == wanted);
      wanted = numbers(static_cast<std::size_t>(outputs), test::CaffeModel::seed("RCNN_bbox_pred") + 1);
      for (std::size_t i = 0; i < wanted.size(); ++i)
        wanted[i] = static_cast<float>(static_cast<double>(wanted[i]) * (i % 4 < 2 ? 0.1 : 0.2));
      CHECK(values(*model, "bbox_pred.bias") == wanted);
    }
}

TEST_CASE("convert: pooling modes that do not tell the operator must be decided") {
  for (const std::string mode : {"align", "crop", ""}) {
    Workshop w(jwyang({9, 3, false, mode}));
    check_error([&] { w.convert(); }, ErrorCode::bad_model, {"source.pth", "roi_op", "--set", mode});
    w.options.sets = {{"roi_op", "align"}};
    CHECK(w.convert().config.roi_op == RoiOp::align);
  }
}

TEST_CASE("convert: what a checkpoint says of itself is compared") {
  Workshop wrong(jwyang({10, 3, false, "pool"}));
  check_error([&] { wrong.convert(); }, ErrorCode::bad_model, {"anchor_scales", "anchor_ratios"});
  for (const bool says : {true, false}) {
    const std::int64_t outputs = says ? 12 : 4;
    std::vector<WireTensor> tensors;
    add(tensors, "RCNN_bbox_pred", {outputs, 8});
    add(tensors, "RCNN_base.0", {4, 3, 3, 3});
    add(tensors, "RCNN_base.3", {4, 4, 3, 3});
    PickleBytes p;
    p.proto().raw("}(").text("model");
    test::add_state_dict(p, tensors).text("class_agnostic").boolean(says).raw("u.");
    Workshop liar(test::zip_bytes(test::torch_members(p.bytes, tensors)));
    check_error([&] { liar.convert(); }, ErrorCode::bad_model,
                {std::string("class_agnostic is ") + (says ? "true" : "false"),
                 "bbox_pred has " + std::to_string(outputs) + " outputs"});
  }
}

TEST_CASE("convert: with a prototxt a checkpoint is the network of that text, under its names") {
  const auto conv = [](const std::string& name, const std::string& bottom, int out, int kernel, int pad) {
    return "layer { name: '" + name + "' type: 'Convolution' bottom: '" + bottom + "' top: '" + name +
           "' convolution_param { num_output: " + std::to_string(out) +
           " kernel_size: " + std::to_string(kernel) + " pad: " + std::to_string(pad) + " } }\n";
  };
  const auto relu = [](const std::string& blob) {
    return "layer { name: 'relu_" + blob + "' type: 'ReLU' bottom: '" + blob + "' top: '" + blob + "' }\n";
  };
  const auto fc = [](const std::string& name, const std::string& bottom, int out) {
    return "layer { name: '" + name + "' type: 'InnerProduct' bottom: '" + bottom + "' top: '" + name +
           "' inner_product_param { num_output: " + std::to_string(out) + " } }\n";
  };
  std::string text = "name: 'small' input: 'data' input: 'im_info'\n";
  text += conv("first", "data", 4, 3, 1) + relu("first");
  text +=
      "layer { name: 'pool' type: 'Pooling' bottom: 'first' top: 'pool' pooling_param { kernel_size: 2 "
      "stride: 2 } }\n";
  text += conv("second", "pool", 5, 3, 1) + relu("second");
  text += conv("window", "second", 6, 3, 1) + relu("window");
  text += conv("rpn_cls_score", "window", 18, 1, 0) + conv("rpn_bbox_pred", "window", 36, 1, 0);
  text +=
      "layer { name: 'proposal' type: 'Python' top: 'rois' bottom: 'im_info' python_param { layer: "
      "'ProposalLayer' "
      "param_str: \"'feat_stride': 2\" } }\n";
  text +=
      "layer { name: 'p' type: 'ROIPooling' bottom: 'second' bottom: 'rois' top: 'p' roi_pooling_param { "
      "pooled_w: 7 "
      "pooled_h: 7 spatial_scale: 0.5 } }\n";
  text += fc("fc6", "p", 8) + relu("fc6") + fc("fc7", "fc6", 8) + relu("fc7") + fc("cls_score", "fc7", 3) +
          fc("bbox_pred", "fc7", 12);
  Workshop w(jwyang({9, 3, false, "align"}));
  w.options.prototxt = w.folder / "n.prototxt";
  scratch::write(w.options.prototxt, text);
  const ConversionResult result = w.convert();
  CHECK(result.config.rpn_min_size == 16);
  CHECK(result.config.backbone.at(1).pool.rounding == Rounding::ceil);
  CHECK(result.config.names.rpn_conv == "window");
  CHECK(any_holds(result.implied, "the checkpoint says pooling_mode align"));
  const auto model = w.model();
  CHECK(values(*model, "first.weight") == numbers(4 * 27, test::CaffeModel::seed("RCNN_base.0")));
  CHECK(values(*model, "second.bias") == numbers(5, test::CaffeModel::seed("RCNN_base.3") + 1));
  CHECK(values(*model, "window.weight") == numbers(6 * 45, test::CaffeModel::seed("RCNN_rpn.RPN_Conv")));
}

TEST_CASE("convert: torchvision's pixels are folded into the first convolution") {
  const int h = 5, w_ = 4;
  std::vector<double> rgb, normalised, bgr;
  for (const float v : numbers(static_cast<std::size_t>(3 * h * w_), 5))
    rgb.push_back(std::round(127.5 * (v + 1)));
  const TorchvisionInput input;
  const auto plane = static_cast<std::size_t>(h * w_);
  for (std::size_t i = 0; i < rgb.size(); ++i)
    normalised.push_back((rgb[i] / 255 - input.mean[i / plane]) / input.std[i / plane]);
  Workshop w(torchvision());
  const ConversionResult plain = w.convert();
  CHECK(any_holds(plain.assumed, "--input torchvision"));
  CHECK(any_holds(plain.assumed, "pixel_mean=102.9801"));
  const std::vector<float> weight = values(*w.model(), "conv1_1.weight"),
                           bias = values(*w.model(), "conv1_1.bias");
  CHECK(weight == numbers(4 * 27, test::CaffeModel::seed("features.0")));

  w.options.input = InputForm::torchvision;
  const ConversionResult folded = w.convert();
  CHECK_FALSE(any_holds(folded.assumed, "--input torchvision"));
  CHECK(folded.config.pixel_mean == std::array<double, 3>{103.53, 116.28, 123.675});
  CHECK(values(*w.model(), "conv1_1.bias") == bias);
  CHECK(values(*w.model(), "conv2_1.weight") == numbers(5 * 36, test::CaffeModel::seed("features.3")));
  for (std::size_t c = 0; c < 3; ++c)
    for (std::size_t i = 0; i < plane; ++i)
      bgr.push_back(rgb[(2 - c) * plane + i] - folded.config.pixel_mean[c]);
  const auto theirs = convolve(weight, bias, normalised, h, w_);
  const auto ours = convolve(values(*w.model(), "conv1_1.weight"), bias, bgr, h, w_);
  for (std::size_t i = 0; i < theirs.size(); ++i) CHECK(ours[i] == Approx(theirs[i]).margin(1e-5));

  w.options.input = InputForm::caffe;
  CHECK_FALSE(any_holds(w.convert().assumed, "--input torchvision"));
  CHECK(values(*w.model(), "conv1_1.weight") == weight);

  // A model of our own has its pixels already.
  Workshop again("");
  again.options.sources = {w.options.destination};
  again.options.input = InputForm::torchvision;
  check_error([&] { again.convert(); }, ErrorCode::invalid_argument, {"conv1_1", "--input torchvision"});
}

TEST_CASE("convert: half a precision checkpoint stays one, rescaled boxes too") {
  std::vector<WireTensor> tensors;
  const std::vector<float> row = numbers(4 * 3 * 9, 3);
  std::string half(row.size() * 2, '\0');
  from_f32(row.data(), row.size(), DType::f16, half.data());
  tensors.push_back({"features.0.weight", {4, 3, 3, 3}, {}, "", "HalfStorage", 0, -1, half});
  tensors.push_back({"features.0.bias", {4}, {}, "", "HalfStorage", 0, -1, half.substr(0, 8)});
  tensors.push_back({"features.3.weight", {3, 4, 3, 3}, {}, "", "HalfStorage", 0, -1, half});
  tensors.push_back({"features.3.bias", {3}, {}, "", "HalfStorage", 0, -1, half.substr(0, 6)});
  Workshop w(test::torch_zip(tensors));
  w.options.input = InputForm::torchvision;
  const ConversionResult result = w.convert();
  CHECK(result.tensors[0].source_dtype == DType::f16);
  CHECK(result.tensors[0].dtype == DType::f16);
  CHECK(w.model()->weights.at("conv1_1.weight").view.dtype == DType::f16);
  CHECK(w.model()->weights.at("conv1_1.bias").view.dtype == DType::f32);
}

TEST_CASE("convert: safetensors under PyTorch's names, and classifiers of torchvision") {
  Workshop w("");
  const std::vector<float> data = numbers(4 * 4 * 9 + 4, 1);
  const auto tensor = [&](const char* name, const std::vector<std::int64_t>& shape) {
    return StoredTensor{name, DType::f32, shape, data.data(), test::product(shape) * sizeof(float)};
  };
  const std::vector<StoredTensor> tensors{
      tensor("features.0.weight", {4, 3, 3, 3}), tensor("features.0.bias", {4}),
      tensor("features.3.weight", {4, 4, 3, 3}), tensor("features.3.bias", {4}),
      tensor("classifier.0.weight", {2, 16}),    tensor("classifier.0.bias", {2}),
      tensor("classifier.3.weight", {2, 2}),     tensor("classifier.3.bias", {2}),
      tensor("classifier.6.weight", {5, 2}),     tensor("classifier.6.bias", {5})};
  write_safetensors(w.options.sources[0], tensors, {});
  const ConversionResult result = w.convert();
  CHECK(result.config.kind == ModelKind::backbone);
  CHECK(any_holds(result.ignored, "classifier.6.weight"));
  CHECK(w.model()->weights.has("fc7.weight"));
}

TEST_CASE("convert: backbones have the head conventions of the detectors published with them") {
  test::CaffeModel m("ImageNet");
  m.old_format = true;
  test::add_zf_backbone(m);
  Workshop zf(m.net.bytes);
  const ConversionResult result = zf.convert();
  CHECK(result.config.dropout_test_scale == 0.5);
  CHECK(result.config.pooled_h == 6);
  CHECK(result.config.names.roi_pool == "roi_pool_conv5");
  CHECK(result.config.spatial_scale == 0.0625);
  CHECK(any_holds(result.assumed, "published with ZF"));
  Workshop vgg(torchvision());
  CHECK(vgg.convert().config.pooled_w == 7);
  CHECK(vgg.convert().config.spatial_scale == 0.5);
}

TEST_CASE("convert: two tensors of one file that get one name are refused") {
  const auto tensor = [](const std::string& name) {
    return WireTensor{name, {4}, {}, "", "FloatStorage", 0, -1, bytes_of({1, 2, 3, 4})};
  };
  for (const char* twin : {"features.00.bias", "conv1_1.bias"}) {
    Workshop w(torchvision({tensor(twin)}));
    check_error([&] { w.convert(); }, ErrorCode::bad_file,
                {"source.pth", "'features.0.bias'", twin, "both 'conv1_1.bias'"});
  }
}

TEST_CASE("convert: a head without its backbone") {
  std::vector<WireTensor> tensors;
  add(tensors, "classifier.0", {2, 16});
  add(tensors, "0", {2, 2});
  Workshop w(test::torch_zip(tensors));
  check_error([&] { w.convert(); }, ErrorCode::bad_model, {"source.pth"});
}

TEST_CASE("convert: weights of a published size under torchvision's names need to be told their pixels") {
  const int widths[]{64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512};
  const int modules[]{0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28};
  std::string header;
  std::size_t end = 0;
  int inputs = 3;
  for (std::size_t i = 0; i < std::size(widths); ++i) {
    const auto add_tensor = [&](const std::string& name, const std::string& shape, std::size_t elements) {
      header += (header.empty() ? "{" : ",") + ("\"features." + std::to_string(modules[i])) + "." + name +
                "\":{\"dtype\":\"F32\",\"shape\":[" + shape + "],\"data_offsets\":[" + std::to_string(end) +
                "," + std::to_string(end + 4 * elements) + "]}";
      end += 4 * elements;
    };
    const std::string out = std::to_string(widths[i]);
    add_tensor("weight", out + "," + std::to_string(inputs) + ",3,3",
               static_cast<std::size_t>(widths[i] * inputs * 9));
    add_tensor("bias", out, static_cast<std::size_t>(widths[i]));
    inputs = widths[i];
  }
  header += "}";
  Workshop w(PickleBytes().little(header.size(), 8).raw(header).bytes);
  std::filesystem::resize_file(w.options.sources[0], 8 + header.size() + end);  // a hole
  check_error([&] { w.convert(); }, ErrorCode::bad_model,
              {"source.pth", "--input torchvision", "--input caffe"});
  w.options.input = InputForm::caffe;
  CHECK(w.convert().config.pixel_mean[0] == Approx(102.9801));
}

TEST_CASE("convert: a pipe in place of a file is refused, not waited for") {
  Workshop w("x");
  std::filesystem::remove(w.options.sources[0]);
  REQUIRE(::mkfifo(w.options.sources[0].c_str(), 0600) == 0);
  auto done = std::async(std::launch::async,
                         [&] { return std::string(scratch::error_of([&] { w.convert(); }).what()); });
  const bool waits = done.wait_for(std::chrono::seconds(20)) != std::future_status::ready;
  CHECK_FALSE(waits);
  if (waits) std::ofstream(w.options.sources[0]) << "let it go";
  CHECK(done.get().find("not a regular file") != std::string::npos);
}
