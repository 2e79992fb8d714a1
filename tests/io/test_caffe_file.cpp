#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <random>
#include <string>

#include "bounds.h"
#include "caffe_wire.h"
#include "catch.h"
#include "frcnn/error.h"
#include "model_io/convert/caffe_file.h"

using namespace frcnn;
using test::blob;
using test::CaffeModel;
using test::Wire;

namespace {

CaffeNet parse(const std::string& bytes) {
  CaffeNet net;
  test::within_bounds(bytes.size(), [&] {
    net = parse_caffemodel({reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()}, "x.caffemodel");
  });
  return net;
}

CaffeNet parse_text(const std::string& text) {
  CaffeNet net;
  test::within_bounds(text.size(), [&] { net = parse_prototxt(text, "t.prototxt"); });
  return net;
}

// The message of the Error(bad_file) that `action` must throw.
template <typename F>
std::string failure(F action) {
  try {
    action();
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::bad_file);
    return error.what();
  }
  FAIL("nothing was thrown");
  return {};
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::vector<float> floats(const CaffeBlob& b) {
  std::vector<float> values(b.bytes / sizeof(float));
  std::memcpy(values.data(), b.data, b.bytes);
  return values;
}

// Layers in which each byte or two are a number or a field, millions of them, wherever protobuf would make
// more of them in memory.
std::vector<Wire> numbers_without_end() {
  constexpr std::size_t many = 10'000'000;
  const std::string packed(many, '\1');
  const auto tagged = [](char field) {
    std::string bytes(2 * many, '\1');
    for (std::size_t i = 0; i < bytes.size(); i += 2) bytes[i] = static_cast<char>(field << 3);
    return bytes;
  };
  const std::string dims = tagged(1), unknown = tagged(15);
  const auto layer = [](const Wire& inside) {
    return Wire().add(100, Wire().text(1, "conv7").add(7, inside));
  };
  const auto parameter = [](std::uint32_t field, const Wire& inside) {
    return Wire().add(100, Wire().text(1, "conv7").add(field, inside));
  };
  const Wire shape = Wire().add(7, Wire().text(1, packed)), half = Wire().text(1, packed.substr(0, 3000));
  return {layer(shape),
          layer(Wire().text(7, dims)),
          layer(Wire().text(7, unknown)),
          layer(Wire().add(7, half).add(7, half)),
          layer(Wire{unknown}),
          Wire().add(100, Wire().add(7, shape).text(1, "conv7")),
          Wire().add(2, Wire().text(4, "conv7").add(6, shape)),
          parameter(106, Wire().text(4, packed)),
          parameter(106, Wire{unknown}),
          parameter(201, Wire().text(4, packed))};
}

// Whatever is written to stderr while it lives.
class StderrWatch {
 public:
  StderrWatch() : file_(std::tmpfile()), saved_(dup(2)) { dup2(fileno(file_), 2); }
  ~StderrWatch() {
    dup2(saved_, 2);
    close(saved_);
    std::fclose(file_);
  }
  long written() const {
    std::fflush(stderr);
    return static_cast<long>(lseek(fileno(file_), 0, SEEK_END));
  }

 private:
  std::FILE* file_;
  int saved_;
};

}  // namespace

TEST_CASE("caffemodel: layers of both formats are read alike") {
  for (const bool old_format : {false, true}) {
    CaffeModel m("net");
    m.old_format = old_format;
    m.conv("conv1", "data", "conv1", 4, 3, 5, 2, 1);
    m.relu("relu1", "conv1");
    m.norm("norm1", "conv1");
    m.pool("pool1", "norm1", 3, 2, 1);
    m.fc("fc6", "pool1", 6, 8);
    m.dropout("drop6", "fc6", 0.25f, false);
    const CaffeNet net = parse(m.net.bytes);
    CHECK(net.name == "net");
    CHECK(net.old_format == old_format);
    REQUIRE(net.layers.size() == 6);
    const CaffeLayer& conv = net.layers[0];
    CHECK(conv.name == "conv1");
    CHECK(conv.type == "Convolution");
    CHECK(conv.bottoms == std::vector<std::string>{"data"});
    REQUIRE(conv.convolution);
    CHECK(conv.convolution->outputs == 4);
    CHECK(conv.convolution->kernel == std::array<std::int64_t, 2>{5, 5});
    CHECK(conv.convolution->stride == std::array<std::int64_t, 2>{2, 2});
    CHECK(conv.convolution->pad == std::array<std::int64_t, 2>{1, 1});
    CHECK(conv.convolution->group == 1);
    REQUIRE(conv.blobs.size() == 2);
    CHECK(conv.blobs[0].shape == std::vector<std::int64_t>{4, 3, 5, 5});
    CHECK(floats(conv.blobs[0]) == CaffeModel::weights("conv1", {4, 3, 5, 5}));
    CHECK(floats(conv.blobs[1]) == CaffeModel::biases("conv1", 4));
    CHECK(net.layers[1].type == "ReLU");
    REQUIRE(net.layers[2].lrn);
    CHECK(net.layers[2].type == "LRN");
    CHECK(net.layers[2].lrn->region == LrnRegion::within_channel);
    CHECK(net.layers[2].lrn->alpha == 5e-5f);
    REQUIRE(net.layers[3].pooling);
    CHECK(net.layers[3].pooling->kernel == std::array<std::int64_t, 2>{3, 3});
    CHECK(net.layers[4].type == "InnerProduct");
    CHECK(net.layers[4].blobs[0].shape ==
          (old_format ? std::vector<std::int64_t>{1, 1, 6, 8} : std::vector<std::int64_t>{6, 8}));
    REQUIRE(net.layers[5].dropout);
    CHECK(net.layers[5].dropout->ratio == 0.25);
    CHECK_FALSE(net.layers[5].dropout->scale_train);
  }
}

TEST_CASE("caffemodel: doubles, unpacked numbers, gradients and unknown fields") {
  Wire with_doubles;
  with_doubles.add(7, Wire().packed_numbers(1, {2})).packed(8, std::vector<double>{0.1, -3});
  Wire unpacked;  // each number with a tag of its own, and a stored gradient beside them
  unpacked.add(7, Wire().number(1, 2)).real(5, 1.5f).real(5, -2).packed(6, std::vector<float>{9, 9});
  Wire layer;
  layer.text(1, "l").text(2, "Convolution").number(9999, 7).text(4242, "what is this").real(77, 1);
  layer.add(7, with_doubles).add(7, unpacked);
  const CaffeNet net = parse(Wire().number(5, 1).add(100, layer).text(4000, "tail").bytes);
  REQUIRE(net.layers.size() == 1);
  REQUIRE(net.layers[0].blobs.size() == 2);
  CHECK(net.layers[0].blobs[0].dtype == DType::f64);
  double values[2];
  std::memcpy(values, net.layers[0].blobs[0].data, sizeof values);
  CHECK(values[0] == 0.1);
  CHECK(values[1] == -3);
  CHECK(floats(net.layers[0].blobs[1]) == std::vector<float>{1.5f, -2});
  CHECK_FALSE(net.layers[0].convolution);  // absent, not default
}

TEST_CASE("caffemodel: every way to give a kernel, a stride and a pad") {
  const auto conv = [](const Wire& params) {
    return *parse(Wire().add(100, Wire().text(1, "c").text(2, "Convolution").add(106, params)).bytes)
                .layers[0]
                .convolution;
  };
  using Pair = std::array<std::int64_t, 2>;
  CHECK(conv(Wire().number(4, 3)).kernel == Pair{3, 3});
  CHECK(conv(Wire().number(4, 3)).stride == Pair{1, 1});
  CHECK(conv(Wire().number(4, 3)).pad == Pair{0, 0});
  CHECK(conv(Wire().number(4, 3).number(4, 5)).kernel == Pair{3, 5});
  CHECK(conv(Wire().packed_numbers(4, {3, 5})).kernel == Pair{3, 5});
  CHECK(conv(Wire().number(11, 3).number(12, 7)).kernel == Pair{3, 7});
  CHECK(conv(Wire().number(13, 2).number(14, 4)).stride == Pair{2, 4});
  CHECK(conv(Wire().number(9, 1).number(10, 2)).pad == Pair{1, 2});
  CHECK(conv(Wire().number(18, 2)).dilation == Pair{2, 2});
  CHECK(conv(Wire().number(5, 2)).group == 2);
  CHECK_FALSE(conv(Wire().number(2, 0)).bias);
  failure([&] { conv(Wire().packed_numbers(4, {3, 3, 3})); });
}

TEST_CASE("caffemodel: what does not fit is refused with the layer's name") {
  const auto with_blob = [](const Wire& b) {
    return Wire().add(100, Wire().text(1, "conv7").text(2, "Convolution").add(7, b)).bytes;
  };
  std::string message = failure([&] { parse(with_blob(blob({2, 3}, std::vector<float>(5)))); });
  CHECK(contains(message, "x.caffemodel: conv7 blob 0"));
  CHECK(contains(message, "2x3 needs 6 numbers, the file has 5"));
  message = failure([&] { parse(with_blob(blob({1 << 30, 1 << 30, 1 << 30}, {1}))); });
  CHECK(contains(message, "conv7"));
  message = failure([&] { parse(with_blob(blob({-2, -3}, std::vector<float>(6)))); });
  CHECK(contains(message, "-2"));
  failure([] { parse(Wire().add(100, Wire().text(2, "Convolution")).bytes); });  // no name
  CHECK(contains(failure([] { parse(Wire().text(1, "only a name").bytes); }), "no layers"));
  failure([] { parse(""); });
}

TEST_CASE("caffemodel: claimed lengths, counts and groups cost nothing") {
  const StderrWatch watch;
  for (const std::uint64_t claimed :
       {std::uint64_t{100}, std::uint64_t{1} << 31, std::uint64_t{1} << 62, ~std::uint64_t{0}}) {
    Wire file;
    file.text(1, "net").varint(100 << 3 | 2);
    file.varint(claimed);
    file.bytes += "abc";
    CHECK(contains(failure([&] { parse(file.bytes); }), "byte 5"));
    Wire inner;  // the same inside of a blob
    inner.text(1, "conv1").varint(7 << 3 | 2);
    inner.varint(claimed);
    inner.bytes += "abc";
    failure([&] { parse(Wire().add(100, inner).bytes); });
    Wire data;
    data.varint(5 << 3 | 2);
    data.varint(claimed);
    data.bytes += "abcd";
    CHECK(contains(failure([&] { parse(Wire().add(100, Wire().text(1, "conv1").add(7, data)).bytes); }),
                   "conv1"));
  }
  std::string many;
  for (int i = 0; i < 20'001; ++i) many += Wire().add(100, Wire().text(1, "l")).bytes;
  CHECK(contains(failure([&] { parse(many); }), "20000 layers"));
  Wire fields;
  for (int i = 0; i < 4900; ++i) fields.text(3, "");
  fields.text(1, "l");
  std::string everywhere;
  for (int i = 0; i < 110; ++i) everywhere += Wire().add(100, fields).bytes;
  CHECK(contains(failure([&] { parse(everywhere); }), "500000 fields and numbers in all layers"));
  for (int i = 0; i < 100; ++i) fields.text(3, "");
  CHECK(contains(failure([&] { parse(Wire().add(100, fields).bytes); }), "5000 fields"));
  // Empty blobs, each of which is an object in memory; both layer formats.
  for (const bool old : {false, true}) {
    Wire blobs;
    blobs.text(old ? 4 : 1, "l");
    for (int i = 0; i < 4900; ++i) blobs.add(old ? 6 : 7, Wire());
    std::string layers;
    for (int i = 0; i < 100; ++i) layers += Wire().add(old ? 2 : 100, blobs).bytes;
    CHECK(contains(failure([&] { parse(layers); }), "layer 0 ('l') at bytes"));
    CHECK(contains(failure([&] { parse(layers); }), "more than 16 blobs"));
  }
  for (const Wire& attack : numbers_without_end()) {
    const std::string message = failure([&] { parse(attack.bytes); });
    CHECK(contains(message, "x.caffemodel: layer 0 ('conv7') at bytes "));
    CHECK(contains(message, "has more than 5000 fields and numbers"));
  }
  const Wire deep =
      Wire().text(1, "l").add(7, Wire().add(7, Wire().packed_numbers(1, std::vector<std::int64_t>(100, 1))));
  CHECK(contains(failure([&] { parse(Wire().add(100, deep).bytes); }), "100 dimensions, at most 32"));
  std::string groups(1'000'000, '\x0b');  // start-group tags
  failure([&] { parse(groups); });
  failure([&] { parse(Wire().add(100, Wire().text(1, "l").text(7, groups)).bytes); });
  failure([&] { parse(std::string(11, '\xff')); });
  CHECK(watch.written() == 0);
}

TEST_CASE("caffemodel: a file cut or damaged anywhere is an error or a smaller net, never a crash") {
  const StderrWatch watch;
  const std::string whole = test::zf_model().net.bytes;
  const std::size_t layers = parse(whole).layers.size();
  std::size_t refused = 0;
  for (std::size_t length = 0; length < whole.size(); length += length < 600 ? 1 : 37) {
    try {
      const std::size_t kept = parse(whole.substr(0, length)).layers.size();
      CHECK(kept < layers);  // cut between two layers
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::bad_file);
      ++refused;
    }
  }
  CHECK(refused > 500);
  std::mt19937 random(5);
  refused = 0;
  for (int trial = 0; trial < 3000; ++trial) {
    std::string damaged = whole;
    for (int flip = 0; flip < 3; ++flip)
      damaged[random() % std::min<std::size_t>(damaged.size(), 400)] = static_cast<char>(random());
    try {
      parse(damaged);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::bad_file);
      ++refused;
    }
  }
  CHECK(refused > 100);
  CHECK(watch.written() == 0);
}

TEST_CASE("prototxt: layers, comments, quotes, and fields that nobody declared") {
  const StderrWatch watch;
  const CaffeNet net = parse_prototxt(R"(
name: "ZF" # a comment with { braces
input: "data" input_shape { dim: 1 dim: 3 }
state { phase: TRAIN }
layer {
  name: 'conv1' type: "Convolution" bottom: "data" top: "conv1"
  include { phase: TEST not_stage: 'x' }
  param { lr_mult: 1.0 } param { lr_mult: 2.0 decay_mult: 0 }
  convolution_param {
    num_output: 16 kernel_size: 7 pad: 3 stride: 2 engine: CAFFE
    weight_filler { type: "gaussian" std: 0.01 } bias_filler { type: "constant" value: -0.5 }
  }
  future_param { list: [1, 2, 3] deep < a: "}" > }
}
layer { name: "p" type: "Pooling" pooling_param { pool: AVE kernel_h: 2 kernel_w: 3 round_mode: FLOOR } }
layer { name: "proposal" type: "Python" python_param { layer: 'ProposalLayer' param_str: "'feat_stride': 16 \n'scales': [3]" } }
layer { name: "roi" type: "ROIPooling" roi_pooling_param { pooled_w: 6 pooled_h: 5 spatial_scale: 0.0625 } }
)",
                                      "t.prototxt");
  CHECK(net.name == "ZF");
  CHECK(net.inputs == std::vector<std::string>{"data"});
  REQUIRE(net.layers.size() == 4);
  CHECK(net.layers[0].convolution->outputs == 16);
  CHECK(net.layers[0].convolution->pad[0] == 3);
  CHECK(net.layers[1].pooling->method == CaffePooling::Method::average);
  CHECK(net.layers[1].pooling->kernel == std::array<std::int64_t, 2>{2, 3});
  CHECK(net.layers[1].pooling->rounding == Rounding::floor);
  CHECK(net.layers[2].python->param_str == "'feat_stride': 16 \n'scales': [3]");
  CHECK(net.layers[3].roi_pooling->pooled_h == 5);
  const CaffeNet old =
      parse_prototxt("layers { name: 'c' type: CONVOLUTION convolution_param { kernel_size: 3 } }", "v1");
  CHECK(old.layers[0].type == "Convolution");
  CHECK(watch.written() == 0);
}

TEST_CASE("prototxt: text without end") {
  const auto repeated = [](const std::string& what, std::size_t bytes) {
    std::string text = "name: 'net' layer { name: 'l' }\n";
    while (text.size() + what.size() <= bytes) text += what;
    return text;
  };
  constexpr std::size_t most = 4u << 20;
  for (const char* message : {"layer{}", "layers<>", "layer{blobs{}}", "input_shape{}", "x{}", "x:[]"})
    CHECK(
        contains(failure([&] { parse_text(repeated(message, most)); }), "line 2: more than 20000 messages"));
  CHECK(parse_text(repeated("input:''", most)).layers.size() == 1);
  CHECK(parse_text(repeated("#", most)).layers.size() == 1);
  CHECK(contains(failure([&] { parse_text(repeated("#", most + 1)); }),
                 "4194305 bytes; a prototxt has at most 4194304"));
  // As many as there may be.
  std::string layers, blobs;
  for (int i = 0; i < 20'000; ++i) layers += "layer{name:'l' bottom:'' bottom:'' bottom:'' top:'' top:''}";
  CHECK(parse_text(layers).layers.size() == 20'000);
  for (int i = 0; i < 19'999; ++i) blobs += "blobs{data:1}";
  CHECK(contains(failure([&] { parse_text("layer{name:'l' " + blobs + "}"); }), "t.prototxt: l blob 0"));
}

TEST_CASE("prototxt: errors name the file and the line, and depth is bounded") {
  const StderrWatch watch;
  std::string message = failure([] { parse_text("name: \"x\"\nlayer {\n  name: 3 }\n"); });
  CHECK(contains(message, "t.prototxt: line 3"));
  CHECK(contains(failure([] { parse_text("layer {\n\n"); }), "line 3"));
  CHECK(contains(failure([] { parse_text(""); }), "no layers"));
  failure([] { parse_text("layer { name: \"unclosed\n }"); });
  failure([] { parse_text(std::string("\0\xff\x01", 3)); });
  for (const char* open : {"a { ", "a < ", "layer { ", "a: [", "layer { python_param { "}) {
    std::string deep;
    for (int i = 0; i < 100'000; ++i) deep += open;
    CHECK(contains(failure([&] { parse_text(deep); }), "deep"));
  }
  CHECK(watch.written() == 0);
}
