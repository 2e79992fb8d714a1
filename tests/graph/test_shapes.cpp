#include <cmath>
#include <string>

#include "catch.h"
#include "frcnn/error.h"
#include "graph/shapes.h"

using namespace frcnn;

namespace {

std::vector<TensorSpec> specs(std::initializer_list<Shape> shapes) {
  std::vector<TensorSpec> out;
  for (const Shape& s : shapes) out.push_back({s, DType::f32});
  return out;
}

// The message of a failing inference, which must name the layer, holds every one of `words`.
void check_error(const Op& op, const std::vector<TensorSpec>& in, std::initializer_list<const char*> words) {
  std::string message = "no error";
  try {
    infer(op, in, "the_layer");
  } catch (const Error& e) {
    CHECK(e.code() == ErrorCode::bad_model);
    message = e.what();
  }
  INFO(message);
  CHECK(message.rfind("the_layer: ", 0) == 0);
  for (const char* word : words) CHECK(message.find(word) != std::string::npos);
}

}  // namespace

TEST_CASE("feature sizes of the published backbones", "[shapes]") {
  const int sizes[][3] = {{500, 32, 32}, {562, 36, 36}, {600, 38, 39}, {750, 47, 48},
                          {800, 50, 51}, {850, 54, 54}, {900, 57, 57}, {1000, 63, 64}};   // input -> VGG / ZF
  for (const auto& [input, vgg, zf] : sizes) {
    std::int64_t n = input;
    for (int i = 0; i < 4; ++i) n = pooled_size(n, {2, 2, 0, Rounding::ceil});
    CHECK(n == vgg);
    std::int64_t m = (input + 6 - 7) / 2 + 1;
    m = pooled_size(m, {3, 2, 1, Rounding::ceil});
    m = (m + 4 - 5) / 2 + 1;
    CHECK(pooled_size(m, {3, 2, 1, Rounding::ceil}) == zf);
  }
}

TEST_CASE("pooling follows Caffe's ceil rule, also where the map is smaller than the window", "[shapes]") {
  for (int in = 1; in < 20; ++in)
    for (int k = 1; k < 5; ++k)
      for (int s = 1; s < 4; ++s)
        for (int p = 0; p < k; ++p) {
          std::int64_t expected = static_cast<std::int64_t>(std::ceil(static_cast<double>(in + 2 * p - k) / s)) + 1;
          if (p > 0 && (expected - 1) * s >= in + p) --expected;
          INFO(in << " k" << k << " s" << s << " p" << p);
          CHECK(pooled_size(in, {k, s, p, Rounding::ceil}) == expected);
        }
  CHECK(pooled_size(5, {2, 2, 0, Rounding::floor}) == 2);
}

TEST_CASE("output shapes", "[shapes]") {
  CHECK(infer(Conv2d{2, 3, {}}, specs({{2, 37, 45, 3}, {8, 3, 7, 7}, {8}}), "c")[0].shape == Shape{2, 19, 23, 8});
  CHECK(infer(Linear{}, specs({{5, 7, 7, 2}, {11, 98}, {11}}), "fc")[0].shape == Shape{5, 11});
  const auto top = infer(TopK{6}, specs({{2, 9, 4}, {2, 9}}), "k");
  CHECK(top[0].shape == Shape{2, 6, 4});
  CHECK(top[2].dtype == DType::i32);
  CHECK(infer(TopK{0}, specs({{2, 9, 4}, {2, 9}}), "k")[1].shape == Shape{2, 9});
  const TensorSpec images{Shape{2, sizeof(SourceImage)}, DType::u8}, pixels{Shape{5, 7, 3}, DType::u8};
  CHECK(infer(Preprocess{{}, 600, 800}, std::vector{images}, "p")[0].shape == Shape{2, 600, 800, 3});
  CHECK(infer(Preprocess{{}, 2, 3}, std::vector{images, pixels}, "p")[0].shape == Shape{2, 2, 3, 3});
}

TEST_CASE("errors name the layer and both sides", "[shapes]") {
  check_error(Conv2d{}, specs({{1, 8, 8, 64}, {32, 128, 3, 3}, {32}}), {"128", "64"});
  check_error(Conv2d{}, specs({{1, 8, 8, 4}, {32, 4, 3, 3}, {31}}), {"31", "32"});
  check_error(Conv2d{}, specs({{1, 2, 2, 4}, {32, 4, 3, 3}, {32}}), {"does not fit"});
  check_error(Linear{}, specs({{5, 10}, {3, 11}, {3}}), {"11", "10"});
  // Products of no length.
  check_error(Conv2d{}, specs({{1, 8, 8, 0}, {4, 0, 3, 3}, {4}}), {"4x0x3x3", "no values"});
  check_error(Conv2d{}, specs({{1, 8, 8, 2}, {4, 2, 0, 3}, {4}}), {"4x2x0x3", "no values"});
  check_error(Linear{}, specs({{5, 0}, {3, 0}, {3}}), {"5x0", "no values"});
  check_error(Linear{}, specs({{5, 2, 0, 4}, {3, 0}, {3}}), {"5x2x0x4", "no values"});
  check_error(DecodeProposals{{{0, 0, 15, 15}}, 16, 16}, specs({{1, 3, 3, 4}, {1, 3, 3, 4}, {1, 3}}), {"scores", "2"});
  const TensorSpec sizes{Shape{2, 4}, DType::i32};
  for (const TensorSpec& wrong : {TensorSpec{Shape{1, 4}, DType::i32}, TensorSpec{Shape{2, 4}}}) {
    const TensorSpec features{Shape{2, 3, 3, 4}}, rois{Shape{5, 5}};
    CHECK(infer(RoiPool{}, std::vector{features, rois, sizes}, "p")[0].shape == Shape{5, 7, 7, 4});
    check_error(RoiPool{}, std::vector{features, rois, wrong}, {"map_sizes", "2x4"});
    check_error(RoiAlign{}, std::vector{features, rois, wrong}, {"map_sizes", "2x4"});
    check_error(RoiPool{7, 7, 0.0625f, true}, std::vector{features, rois, sizes}, {"2 inputs", "3"});
    const TensorSpec prob{Shape{2, 3, 3, 2}}, deltas{Shape{2, 3, 3, 4}}, im_info{Shape{2, 3}};
    check_error(DecodeProposals{{{0, 0, 15, 15}}, 16, 16}, std::vector{prob, deltas, im_info, wrong},
                {"map_sizes", "2x4"});
  }
  check_error(SelectDetections{}, specs({{5, 3}, {5, 4}, {1}}), {"count", "i32"});
  check_error(Relu{}, {}, {"no input"});
  const TensorSpec images{Shape{2, sizeof(SourceImage)}, DType::u8}, real{Shape{2, sizeof(SourceImage)}},
      narrow{Shape{2, 8}, DType::u8};
  check_error(Preprocess{{}, 8, 8}, std::vector{real}, {"u8", "f32"});
  check_error(Preprocess{{}, 8, 8}, std::vector{narrow}, {"64", "2x8"});
  check_error(Preprocess{{}, 8, 8}, std::vector{images, real}, {"pixels", "u8"});
  check_error(Preprocess{{}, 8, 8}, std::vector{images, narrow, narrow}, {"1 or 2", "3"});
  check_error(Preprocess{{}, 0, 8}, std::vector{images}, {"8x0", "nothing in it"});
}
