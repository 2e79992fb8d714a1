// What the CPU does with maps stored in bf16.
#include <limits>
#include <string>
#include <vector>

#include "frcnn/error.h"
#include "narrow.h"
#include "ops/source_images.h"
#include "reference/conv2d.h"
#include "reference/conv2d_backward.h"
#include "reference/linear.h"
#include "reference/lrn.h"

using namespace frcnn;
using namespace frcnn::test;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();
constexpr DType bf16 = DType::bf16;

// More than a vector of channels, one, and what is left over.
constexpr std::int64_t channel_counts[] = {1, 5, 32, 33, 64, 70};

bool can_multiply() {
  if (cpu::multiplies_bf16()) return true;
  WARN("SKIPPED: this processor multiplies no bf16");
  return false;
}

struct Conv {
  Shape src, weight;
  Conv2d op;
};

const Conv convolutions[] = {
    {{1, 1, 1, 1}, {1, 1, 1, 1}, {1, 0, {}}},
    {{1, 37, 45, 3}, {8, 3, 7, 7}, {2, 3, {true}}},
    {{1, 24, 29, 96}, {33, 96, 5, 5}, {2, 2, {}}},
    {{2, 19, 27, 5}, {9, 5, 3, 3}, {1, 1, {true}}},
    {{1, 14, 21, 64}, {64, 64, 3, 3}, {1, 1, {true}}},
    {{2, 14, 21, 17}, {36, 17, 1, 1}, {1, 0, {}}},
    {{1, 12, 12, 8}, {24, 8, 2, 2}, {2, 1, {true, 0.5f}}},
    {{1, 20, 21, 256}, {16, 256, 3, 3}, {1, 1, {true}}},  // Winograd in fp32, direct here
    // Winograd here: sizes even and odd, one panel of outputs and parts of one, each padding, two images.
    {{1, 20, 21, 64}, {64, 64, 3, 3}, {1, 1, {true}}},
    {{1, 23, 20, 80}, {112, 80, 3, 3}, {1, 1, {true, 0.5f}}},
    {{2, 15, 17, 64}, {80, 64, 3, 3}, {1, 1, {}}},
    {{1, 22, 23, 96}, {64, 96, 3, 3}, {1, 0, {false, 1.5f}}},
    {{1, 19, 19, 64}, {144, 64, 3, 3}, {1, 2, {true}}},
    {{1, 20, 19, 512}, {64, 512, 3, 3}, {1, 1, {true}}},
};

struct Fc {
  Shape src;
  std::int64_t outputs;
  Linear op;
};

const Fc products[] = {{{1, 1}, 1, {}},
                       {{13, 49}, 21, {{true}}},
                       {{7, 1000}, 5, {{true, 0.5f}}},
                       {{30, 7, 7, 32}, 64, {{true}}},
                       {{5, 6, 6, 24}, 65, {}}};

// A source in f32 is a network's input that was given as numbers; a destination in f32 a score.
struct Types {
  DType src, dst;
};
constexpr Types types[] = {{bf16, bf16}, {bf16, DType::f32}, {DType::f32, bf16}};

std::string text(const Types& t) {
  return std::string(name_of(t.src)) + " to " + std::string(name_of(t.dst));
}

Tensor rounded(const Tensor& tensor) { return widened(stored_as(tensor, bf16)); }

// What plain loops make of it: operands in the type of the result, sums in float, rounded where it is stored.
Tensor plain_result(const TensorSpec& out, const std::vector<float>& sums) {
  const Tensor wide = f32(out.shape, sums);
  return out.dtype == bf16 ? rounded(wide) : wide;
}

// `reference`(T{}, src, weight, bias) computes in T.
template <class O, class Reference>
void check_product(const O& op, const Shape& src_shape, const Shape& weight_shape, const Types& t,
                   const Reference& reference) {
  const std::vector<TensorSpec> specs{{src_shape}, {weight_shape}, {{weight_shape[0]}}};
  std::vector<TensorSpec> out = infer(op, specs, "test");
  out[0].dtype = t.dst;
  const auto run = [&](const Tensor& src, const Tensor& weight, const Tensor& bias) {
    return widened(run_op(op, {t.src == bf16 ? stored_as(src, bf16) : src, weight, bias}, out, 2)[0]);
  };
  {
    const Tensor src = integers(src_shape, 7, 1), weight = integers(weight_shape, 7, 2),
                 bias = integers({weight_shape[0]}, 50, 3);
    CHECK(same_values(run(src, weight, bias), plain_result(out[0], reference(0.0f, src, weight, bias))));
  }
  ErrorTally tally;
  for (unsigned round = 0; round < rounds_for(out[0].shape); ++round) {
    const Tensor given = uniform(src_shape, 0, 1, 3 * round + 4),
                 src = t.src == bf16 ? rounded(given) : given;
    const auto multiplied = [&](const Tensor& x) { return t.dst == bf16 ? rounded(x) : x; };
    const Tensor weight = uniform(weight_shape, -1, 1, 3 * round + 5),
                 bias = uniform({weight_shape[0]}, -1, 1, 3 * round + 6);
    tally.add(
        run(src, weight, bias).template as<float>(),
        plain_result(out[0], reference(0.0f, multiplied(src), multiplied(weight), bias)).template as<float>(),
        reference(0.0, src, weight, bias));
  }
  tally.check();
}

}  // namespace

TEST_CASE("bf16: convolutions", "[bf16]") {
  if (!can_multiply()) return;
  for (const Conv& c : convolutions)
    for (const Types& t : types) {
      FRCNN_CASE("conv2d " + to_string(c.src) + " with " + to_string(c.weight) + ", " + text(t));
      check_product(c.op, c.src, c.weight, t,
                    [&]<class T>(T, const Tensor& src, const Tensor& weight, const Tensor& bias) {
                      return reference::conv2d<T>(c.op, c.src, src.as<float>(), c.weight, weight.as<float>(),
                                                  bias.as<float>());
                    });
    }
}

TEST_CASE("bf16: Winograd gives the same bytes for every number of threads", "[bf16]") {
  if (!can_multiply()) return;
  const Conv2d op{1, 1, {true}};
  const std::vector<TensorSpec> in{{{1, 37, 41, 64}, bf16}, {{96, 64, 3, 3}}, {{96}}},
      out{{{1, 37, 41, 96}, bf16}};
  const std::string kernel = cpu::prepare(op, KernelSpec{in, out}, cpu::Settings{1}).implementation;
  if (kernel != "winograd_2x2:avx512_bf16") {
    WARN("SKIPPED: this processor runs " << kernel << " instead");
    return;
  }
  const Tensor src = stored_as(uniform(in[0].shape, 0, 1, 1), bf16), weight = uniform(in[1].shape, -1, 1, 2),
               bias = uniform(in[2].shape, -1, 1, 3);
  const Tensor one = run_op(op, {src, weight, bias}, out, 1)[0];
  for (const int threads : {2, 3, 7, 64})
    CHECK(same_values(run_op(op, {src, weight, bias}, out, threads)[0], one));
}

TEST_CASE("bf16: fully connected layers", "[bf16]") {
  if (!can_multiply()) return;
  for (const Fc& c : products)
    for (const Types& t : types) {
      FRCNN_CASE("linear " + to_string(c.src) + " to " + std::to_string(c.outputs) + ", " + text(t));
      const Shape weight_shape{c.outputs, c.src.row()};
      check_product(c.op, c.src, weight_shape, t,
                    [&]<class T>(T, const Tensor& src, const Tensor& weight, const Tensor& bias) {
                      return reference::linear<T>(c.op, c.src, src.as<float>(), weight_shape,
                                                  weight.as<float>(), bias.as<float>());
                    });
    }
}

TEST_CASE("bf16: relu and scale", "[bf16]") {
  for (const std::int64_t channels : channel_counts) {
    const Tensor src = uniform({1, 3, 5, channels}, -2, 2, 1);
    check_stored(Relu{}, {src}, bf16);
    check_stored(Scale{0.5f}, {src}, bf16);
    check_stored(Scale{-0.3f}, {src}, bf16);
  }
  const Tensor odd =
      f32({10}, {-0.0f, infinity, -infinity, nan_value, 6e4f, -6e4f, 1e-7f, 3e38f, -1e-39f, 1e-45f});
  check_stored(Relu{}, {odd}, bf16);
  check_stored(Scale{2.0f}, {odd}, bf16);
  check_stored(Scale{2.0f}, {Tensor({Shape{0, 4}, DType::f32})}, bf16);
}

TEST_CASE("bf16: max pooling", "[bf16]") {
  for (const std::int64_t channels : channel_counts) {
    check_stored(MaxPool{2, 2, 0, Rounding::ceil}, {uniform({2, 5, 7, channels}, -3, -1, 1)}, bf16);
    check_stored(MaxPool{3, 2, 1, Rounding::ceil}, {uniform({1, 6, 5, channels}, -3, -1, 2)}, bf16);
  }
  check_stored(MaxPool{2, 2, 0, Rounding::ceil},
               {f32({1, 2, 6, 1}, {nan_value, 1, nan_value, nan_value, -infinity, -infinity, 2, nan_value,
                                   nan_value, nan_value, -infinity, -3e38f})},
               bf16);
}

TEST_CASE("bf16: RoI pooling and RoI align", "[bf16]") {
  const Tensor rois =
      f32({7, 5}, {0, 10, 12, 70, 50, 1,  -40, -40, 20,     300, 1,     60, 50, 10,        5, 0,  0, 0,
                   0, 0,  2,  0,  0,  60, 60,  0,   -1e30f, 0,   1e30f, 40, 1,  nan_value, 8, 60, 60});
  for (const std::int64_t channels : channel_counts) {
    const Tensor features = uniform({2, 6, 7, channels}, -2, 2, 1);
    check_stored(RoiPool{3, 2, 0.0625f}, {features, rois}, bf16);
    check_stored(RoiAlign{2, 3, 0.0625f, 0, false}, {features, rois}, bf16);
    check_stored(RoiAlign{3, 2, 0.0625f, 2, true}, {features, rois}, bf16);
  }
  check_stored(RoiPool{1, 1, 1.0f}, {f32({1, 1, 2, 1}, {nan_value, nan_value}), f32({1, 5}, {0, 0, 0, 1, 0})},
               bf16);
  check_stored(RoiPool{7, 7, 0.0625f}, {uniform({1, 3, 3, 8}, 0, 1, 2), f32({0, 5}, {})}, bf16);
  check_stored(RoiAlign{7, 7, 0.0625f, 0, true}, {uniform({1, 3, 3, 8}, 0, 1, 2), f32({0, 5}, {})}, bf16);
}

TEST_CASE("bf16: preprocess", "[bf16]") {
  const Sources sources = sources_of({{13, 9, 1.0}, {13, 9, 1.7, PixelFormat::nv12}, {13, 9, 0.4}}, 1);
  const Preprocess op{{102.9801, 115.9465, 122.7717}, sources.height, sources.width};
  std::vector<TensorSpec> out{{Shape{3, op.height, op.width, 3}, DType::f32}};
  const Tensor exact = run_op(op, sources.inputs(), out)[0];
  out[0].dtype = bf16;
  CHECK(same_values(run_op(op, sources.inputs(), out)[0], stored_as(exact, bf16)));
}

TEST_CASE("bf16: lrn has at most twice the error of plain float loops", "[bf16]") {
  for (const LrnRegion region : {LrnRegion::within_channel, LrnRegion::across_channels})
    for (const std::int64_t channels : {3, 64, 70})
      for (const float beta : {0.75f, 0.6f}) {
        const Lrn op{region, 3, 0.1f, beta, 2.0f};
        const Shape shape{2, 9, 17, channels};
        FRCNN_CASE("lrn " + to_string(shape) + (region == LrnRegion::within_channel ? " within" : " across") +
                   ", beta " + std::to_string(beta));
        const Tensor src = stored_as(uniform(shape, -20, 60, 1), bf16), wide = widened(src);
        check_error(widened(run_op(op, {src}, {src.spec}, 3)[0]).as<float>(),
                    rounded(f32(shape, reference::lrn<float>(op, shape, wide.as<float>()))).as<float>(),
                    reference::lrn<double>(op, shape, wide.as<float>()));
      }
}

TEST_CASE("bf16: other types, and maps that change theirs where nothing converts, are refused", "[bf16]") {
  const auto refused = [](const auto& op, const std::vector<TensorSpec>& in, const TensorSpec& to,
                          const char* name) {
    const std::vector<TensorSpec> out{to};
    try {
      cpu::prepare(op, KernelSpec{in, out}, cpu::Settings{});
    } catch (const Error& e) {
      return e.code() == ErrorCode::unsupported && std::string(e.what()).find(name) == 0;
    }
    return false;
  };
  const TensorSpec wide{{1, 4, 4, 8}}, narrow{{1, 4, 4, 8}, bf16}, half{{1, 4, 4, 8}, DType::f16},
      rois{{3, 5}};
  CHECK(refused(Relu{}, {wide}, narrow, "relu: reads f32 and cannot write bf16"));
  CHECK(refused(Scale{}, {narrow}, wide, "scale: reads bf16"));
  CHECK(refused(MaxPool{}, {wide}, {{1, 2, 2, 8}, bf16}, "max_pool: reads f32"));
  CHECK(refused(Lrn{}, {half}, half, "lrn: the CPU stores maps as f32 or bf16, not as f16"));
  CHECK(refused(RoiPool{}, {half, rois}, {{3, 7, 7, 8}, DType::f16}, "roi_pool: the CPU"));
  CHECK(refused(RoiAlign{}, {wide, rois}, {{3, 7, 7, 8}, bf16}, "roi_align: reads f32"));
  CHECK(refused(Conv2d{1, 1, {}}, {half, {{8, 8, 3, 3}}, {{8}}}, half, "conv2d of 1x4x4x8"));
  CHECK(refused(Linear{}, {{{3, 8}, DType::f16}, {{5, 8}}, {{5}}}, {{3, 5}, DType::f16}, "linear of 3x8"));
}

// What training does: maps, weights and gradients stay in f32, and only products round what they multiply.
TEST_CASE("cpu: f32 maps multiplied in bf16, and the gradients of that") {
  if (!can_multiply()) return;
  for (const Conv& c : convolutions) {
    Conv2d op{c.op.stride, c.op.pad, {}, bf16};
    const Shape result =
        infer(op, std::vector<TensorSpec>{{c.src}, {c.weight}, {{c.weight[0]}}}, "test")[0].shape;
    FRCNN_CASE(to_string(c.src) + " with " + to_string(c.weight));
    ErrorTally forward, data, weight, bias;
    for (unsigned round = 0; round < 4; ++round) {
      const Tensor src = uniform(c.src, -1, 1, 4 * round + 1), w = uniform(c.weight, -1, 1, 4 * round + 2),
                   d_dst = uniform(result, -1, 1, 4 * round + 3),
                   b = uniform({c.weight[0]}, -1, 1, 4 * round + 4);
      const Tensor src16 = rounded(src), w16 = rounded(w), d_dst16 = rounded(d_dst);
      const auto sums = [&](auto zero) {
        return reference::conv2d<decltype(zero)>(op, c.src, src16.as<float>(), c.weight, w16.as<float>(),
                                                 b.as<float>());
      };
      const auto gradients = [&](auto zero) {
        return reference::conv2d_backward<decltype(zero)>(op.stride, op.pad, c.src, src16.as<float>(),
                                                          c.weight, w16.as<float>(), result,
                                                          d_dst16.as<float>());
      };
      forward.add(run_op(op, {src, w, b}, 2)[0].as<float>(), sums(0.0f), sums(0.0));
      const auto plain = gradients(0.0f);
      const auto exact = gradients(0.0);
      data.add(run_op(Conv2dBackwardData{op.stride, op.pad, c.src[1], c.src[2], bf16}, {d_dst, w}, 2)[0]
                   .as<float>(),
               plain.src, exact.src);
      const std::vector<Tensor> got = run_op(
          Conv2dBackwardWeight{op.stride, op.pad, c.weight[2], c.weight[3], false, bf16}, {src, d_dst}, 2);
      weight.add(got[0].as<float>(), plain.weight, exact.weight);
      bias.add(got[1].as<float>(), plain.bias, exact.bias);
    }
    forward.check();
    data.check();
    weight.check();
    bias.check();
  }
}
