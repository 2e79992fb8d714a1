// Writes caffemodels for tests, byte by byte from the public field numbers: an oracle that shares nothing
// with the description the converter reads them by.
#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace frcnn::test {

class Wire {
 public:
  Wire& number(std::uint32_t field, std::uint64_t value) {
    varint(std::uint64_t{field} << 3);
    varint(value);
    return *this;
  }
  Wire& real(std::uint32_t field, float value) {
    varint(std::uint64_t{field} << 3 | 5);
    raw(&value, sizeof value);
    return *this;
  }
  Wire& text(std::uint32_t field, const std::string& value) {
    varint(std::uint64_t{field} << 3 | 2);
    varint(value.size());
    bytes += value;
    return *this;
  }
  Wire& add(std::uint32_t field, const Wire& message) { return text(field, message.bytes); }
  template <typename T>
  Wire& packed(std::uint32_t field, const std::vector<T>& values) {  // float or double
    return text(field, std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)));
  }
  Wire& packed_numbers(std::uint32_t field, const std::vector<std::int64_t>& values) {
    Wire inner;
    for (const std::int64_t v : values) inner.varint(static_cast<std::uint64_t>(v));
    return text(field, inner.bytes);
  }
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
    bytes += static_cast<char>(value);
  }

  std::string bytes;

 private:
  void raw(const void* data, std::size_t size) { bytes.append(static_cast<const char*>(data), size); }
};

inline std::vector<float> numbers(std::size_t count, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> values(count);
  for (float& v : values) v = static_cast<float>(static_cast<int>(random() % 2001) - 1000) / 1024.0f;
  return values;
}

inline std::size_t product(const std::vector<std::int64_t>& shape) {
  std::size_t n = 1;
  for (const std::int64_t d : shape) n *= static_cast<std::size_t>(d);
  return n;
}

// One blob: `shape` as a BlobShape, or as the four dimensions of old files.
inline Wire blob(const std::vector<std::int64_t>& shape, const std::vector<float>& values,
                 bool old_shape = false) {
  Wire wire;
  if (old_shape) {
    std::vector<std::int64_t> four(4 - shape.size(), 1);
    four.insert(four.end(), shape.begin(), shape.end());
    for (std::uint32_t i = 0; i < 4; ++i) wire.number(i + 1, static_cast<std::uint64_t>(four[i]));
  } else {
    wire.add(7, Wire().packed_numbers(1, shape));
  }
  return wire.packed(5, values);
}

// Builds a network's caffemodel layer by layer. Weights are drawn from a seed made of the layer's name, so
// that two files of the same network hold the same numbers.
class CaffeModel {
 public:
  bool old_format = false;  // V1 `layers`
  bool parameters = true;   // layers carry their parameters
  Wire net;

  explicit CaffeModel(const std::string& name) { net.text(1, name); }

  static std::uint32_t seed(const std::string& name) {
    std::uint32_t hash = 2166136261u;
    for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
    return hash;
  }
  static std::vector<float> weights(const std::string& layer, const std::vector<std::int64_t>& shape) {
    return numbers(product(shape), seed(layer + ".weight"));
  }
  static std::vector<float> biases(const std::string& layer, std::int64_t outputs) {
    return numbers(static_cast<std::size_t>(outputs), seed(layer + ".bias"));
  }

  void layer(const std::string& name, const std::string& type, const std::vector<std::string>& bottoms,
             const std::vector<std::string>& tops, const std::vector<Wire>& blobs = {},
             std::uint32_t field = 0, const Wire& params = {}) {
    Wire l;
    l.text(old_format ? 4 : 1, name);
    if (old_format)
      l.number(5, old_type(type));
    else
      l.text(2, type);
    for (const auto& bottom : bottoms) l.text(old_format ? 2 : 3, bottom);
    for (const auto& top : tops) l.text(old_format ? 3 : 4, top);
    for (const auto& b : blobs) l.add(old_format ? 6 : 7, b);
    if (field && parameters) l.add(old_format ? old_field(field) : field, params);
    net.add(old_format ? 2 : 100, l);
  }

  void conv(const std::string& name, const std::string& bottom, const std::string& top, std::int64_t out,
            std::int64_t in, std::int64_t kernel, int stride, int pad, const Wire& extra = {}) {
    Wire params;
    params.number(1, static_cast<std::uint64_t>(out)).number(3, static_cast<std::uint64_t>(pad));
    params.number(4, static_cast<std::uint64_t>(kernel)).number(6, static_cast<std::uint64_t>(stride));
    params.bytes += extra.bytes;
    const std::vector<std::int64_t> shape{out, in, kernel, kernel};
    layer(name, "Convolution", {bottom}, {top},
          {blob(shape, weights(name, shape), old_format), blob({out}, biases(name, out), old_format)}, 106,
          params);
  }
  void relu(const std::string& name, const std::string& top) { layer(name, "ReLU", {top}, {top}); }
  void pool(const std::string& name, const std::string& bottom, int kernel, int stride, int pad,
            int method = 0) {
    Wire params;
    params.number(1, static_cast<std::uint64_t>(method)).number(2, static_cast<std::uint64_t>(kernel));
    params.number(3, static_cast<std::uint64_t>(stride)).number(4, static_cast<std::uint64_t>(pad));
    layer(name, "Pooling", {bottom}, {name}, {}, 121, params);
  }
  void norm(const std::string& name, const std::string& bottom) {
    layer(name, "LRN", {bottom}, {name}, {}, 118,
          Wire().number(1, 3).real(2, 5e-5f).real(3, 0.75f).number(4, 1));
  }
  void fc(const std::string& name, const std::string& bottom, std::int64_t out, std::int64_t in) {
    const std::vector<std::int64_t> shape{out, in};
    layer(name, "InnerProduct", {bottom}, {name},
          {blob(shape, weights(name, shape), old_format), blob({out}, biases(name, out), old_format)}, 117,
          Wire().number(1, static_cast<std::uint64_t>(out)));
  }
  void dropout(const std::string& name, const std::string& top, float ratio, bool scale_train) {
    layer(name, "Dropout", {top}, {top}, {}, 108, Wire().real(1, ratio).number(2, scale_train));
  }

 private:
  static std::uint64_t old_type(const std::string& type) {
    if (type == "Convolution") return 4;
    if (type == "Dropout") return 6;
    if (type == "InnerProduct") return 14;
    if (type == "LRN") return 15;
    if (type == "Pooling") return 17;
    if (type == "ReLU") return 18;
    return type == "Softmax" ? 20 : 0;
  }
  static std::uint32_t old_field(std::uint32_t field) {
    switch (field) {
      case 106:
        return 10;  // convolution
      case 108:
        return 12;  // dropout
      case 117:
        return 17;  // inner product
      case 118:
        return 18;  // LRN
      default:
        return 19;  // pooling
    }
  }
};

// A small network of ZF's form: 8, 6, 5, 5, 4 channels, heads of 10, `anchors` anchors, `classes` classes,
// 2x2 pooling.
struct ZfForm {
  std::string rpn_conv = "rpn_conv1", rpn_top = "rpn_conv1";
  std::int64_t anchors = 9, classes = 4;
  std::string param_str = "'feat_stride': 16";
  bool proposal = true;  // has the proposal layer; alternating training's last file has not
  bool head = true;
};

inline void add_zf_backbone(CaffeModel& m, const std::string& data = "data") {
  m.conv("conv1", data, "conv1", 8, 3, 7, 2, 3);
  m.relu("relu1", "conv1");
  m.norm("norm1", "conv1");
  m.pool("pool1", "norm1", 3, 2, 1);
  m.conv("conv2", "pool1", "conv2", 6, 8, 5, 2, 2);
  m.relu("relu2", "conv2");
  m.norm("norm2", "conv2");
  m.pool("pool2", "norm2", 3, 2, 1);
  m.conv("conv3", "pool2", "conv3", 5, 6, 3, 1, 1);
  m.relu("relu3", "conv3");
  m.conv("conv4", "conv3", "conv4", 5, 5, 3, 1, 1);
  m.relu("relu4", "conv4");
  m.conv("conv5", "conv4", "conv5", 4, 5, 3, 1, 1);
  m.relu("relu5", "conv5");
}

inline void add_zf_heads(CaffeModel& m, const ZfForm& form) {
  m.conv(form.rpn_conv, "conv5", form.rpn_top, 7, 4, 3, 1, 1);
  m.relu("rpn_relu1", form.rpn_top);
  m.conv("rpn_cls_score", form.rpn_top, "rpn_cls_score", 2 * form.anchors, 7, 1, 1, 0);
  m.conv("rpn_bbox_pred", form.rpn_top, "rpn_bbox_pred", 4 * form.anchors, 7, 1, 1, 0);
  if (form.proposal)
    m.layer("proposal", "Python", {"rpn_cls_prob_reshape", "rpn_bbox_pred", "im_info"}, {"rois"}, {}, 130,
            Wire().text(1, "rpn.proposal_layer").text(2, "ProposalLayer").text(3, form.param_str));
  if (!form.head) return;
  m.layer("roi_pool_conv5", "ROIPooling", {"conv5", "rois"}, {"roi_pool_conv5"}, {}, 8266711,
          Wire().number(1, 2).number(2, 2).real(3, 0.0625f));
  m.fc("fc6", "roi_pool_conv5", 10, 16);
  m.relu("relu6", "fc6");
  m.dropout("drop6", "fc6", 0.5f, false);
  m.fc("fc7", "fc6", 10, 10);
  m.relu("relu7", "fc7");
  m.dropout("drop7", "fc7", 0.5f, false);
  m.fc("cls_score", "fc7", form.classes, 10);
  m.fc("bbox_pred", "fc7", 4 * form.classes, 10);
  m.layer("cls_prob", "Softmax", {"cls_score"}, {"cls_prob"});
}

inline CaffeModel zf_model(const ZfForm& form = {}) {
  CaffeModel m("tiny");
  add_zf_backbone(m);
  add_zf_heads(m, form);
  return m;
}

}  // namespace frcnn::test
