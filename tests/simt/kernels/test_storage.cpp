// Maps stored in 16 bits. Apart from the matrix products every kernel computes in fp32 from what it reads and
// rounds once where it stores, so the plain implementation is the CPU's kernel between a widening and a
// rounding, and the bits are the same.
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "frcnn/error.h"
#include "ops/narrow.h"
#include "ops/source_images.h"
#include "reference/lrn.h"

using namespace frcnn;
using namespace frcnn::test;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();
constexpr DType narrow_types[] = {DType::f16, DType::bf16};

// Whole groups of 16 bytes, pairs, and single channels.
constexpr std::int64_t channel_counts[] = {8, 16, 6, 5, 1};

}  // namespace

TEST_CASE("16-bit storage: relu and scale", "[storage]") {
  for (const DType dtype : narrow_types) {
    for (const std::int64_t channels : channel_counts) {
      const Tensor src = uniform({1, 3, 5, channels}, -2, 2, 1);
      check_stored(Relu{}, {src}, dtype);
      check_stored(Scale{0.5f}, {src}, dtype);
      check_stored(Scale{-0.3f}, {src}, dtype);
    }
    const Tensor odd = f32({9}, {-0.0f, infinity, -infinity, nan_value, 6e4f, -6e4f, 1e-7f, 3e38f, -1e-39f});
    check_stored(Relu{}, {odd}, dtype);
    check_stored(Scale{2.0f}, {odd}, dtype);  // beyond the largest half: infinity
    check_stored(Scale{2.0f}, {Tensor({Shape{0, 4}, DType::f32})}, dtype);
  }
}

TEST_CASE("16-bit storage: max_pool", "[storage]") {
  for (const DType dtype : narrow_types) {
    for (const std::int64_t channels : channel_counts) {
      check_stored(MaxPool{2, 2, 0, Rounding::ceil}, {uniform({2, 5, 7, channels}, -3, -1, 1)}, dtype);
      check_stored(MaxPool{3, 2, 1, Rounding::ceil}, {uniform({1, 6, 5, channels}, -3, -1, 2)}, dtype);
    }
    check_stored(
        MaxPool{2, 2, 0, Rounding::ceil},
        {f32({1, 2, 4, 1}, {nan_value, 1, nan_value, nan_value, -infinity, 2, nan_value, nan_value})}, dtype);
  }
}

TEST_CASE("16-bit storage: lrn", "[storage]") {
  for (const DType dtype : narrow_types) {
    for (const LrnRegion region : {LrnRegion::within_channel, LrnRegion::across_channels}) {
      for (const std::int64_t channels : {7, 16}) {
        check_stored(Lrn{region, 3, 5e-5f, 0.75f, 1.0f}, {uniform({2, 5, 6, channels}, -20, 60, 1)}, dtype);
        check_stored(Lrn{region, 5, 1.0f, 0.75f, 2.0f}, {uniform({1, 4, 7, channels}, -20, 60, 2)}, dtype);
        // Another power is the library's, so only its error is held.
        const Lrn op{region, 3, 0.1f, 0.6f, 2.0f};
        const Tensor src = stored_as(uniform({2, 5, 6, channels}, -20, 60, 3), dtype), wide = widened(src);
        const Shape& shape = src.spec.shape;
        const Tensor plain =
            widened(stored_as(shape, reference::lrn<float>(op, shape, wide.as<float>()), dtype));
        check_error(widened(run_op(op, {src}, {src.spec})[0]).as<float>(), plain.as<float>(),
                    reference::lrn<double>(op, shape, wide.as<float>()));
      }
    }
  }
}

TEST_CASE("16-bit storage: RoI pooling and RoI align", "[storage]") {
  const Tensor rois =
      f32({7, 5}, {0, 10, 12, 70, 50, 1,  -40, -40, 20,     300, 1,     60, 50, 10,        5, 0,  0, 0,
                   0, 0,  2,  0,  0,  60, 60,  0,   -1e30f, 0,   1e30f, 40, 1,  nan_value, 8, 60, 60});
  for (const DType dtype : narrow_types) {
    for (const std::int64_t channels : channel_counts) {
      const Tensor features = uniform({2, 6, 7, channels}, -2, 2, 1);
      check_stored(RoiPool{3, 2, 0.0625f}, {features, rois}, dtype);
      check_stored(RoiAlign{2, 3, 0.0625f, 0, false}, {features, rois}, dtype);
      check_stored(RoiAlign{3, 2, 0.0625f, 2, true}, {features, rois}, dtype);
    }
    check_stored(RoiPool{7, 7, 0.0625f}, {uniform({1, 3, 3, 8}, 0, 1, 2), f32({0, 5}, {})}, dtype);
    check_stored(RoiAlign{7, 7, 0.0625f, 0, true}, {uniform({1, 3, 3, 8}, 0, 1, 2), f32({0, 5}, {})}, dtype);
  }
}

TEST_CASE("16-bit storage: preprocess", "[storage]") {
  const Sources sources = sources_of({{13, 9, 1.0}, {13, 9, 1.7, PixelFormat::nv12}, {13, 9, 0.4}}, 1);
  const Preprocess op{{102.9801, 115.9465, 122.7717}, sources.height, sources.width};
  const std::vector<Tensor> in = sources.inputs();
  const std::vector<TensorSpec> specs{in[0].spec, in[1].spec};
  std::vector<TensorSpec> out = infer(op, specs, "test");
  const Tensor exact = run_once(cpu::prepare(op, KernelSpec{specs, out}, cpu::Settings{}), in, out, 0xFF)[0];
  for (const DType dtype : narrow_types) {
    out[0].dtype = dtype;
    CHECK(same_values(run_op(op, in, out)[0], stored_as(exact, dtype)));
  }
}

TEST_CASE("16-bit storage: a destination stored in another type than its source is refused", "[storage]") {
  const TensorSpec wide{{1, 4, 4, 8}, DType::f32}, narrow{{1, 4, 4, 8}, DType::f16},
      pooled{{1, 2, 2, 8}, DType::f16}, rois{{3, 5}, DType::f32}, bins{{3, 7, 7, 8}, DType::f16};
  const auto refused = [](const auto& op, const std::vector<TensorSpec>& in, const TensorSpec& to) {
    const std::vector<TensorSpec> out{to};
    try {
      cuda::prepare(op, KernelSpec{in, out}, cuda::Settings{});
    } catch (const Error& e) {
      const std::string what = e.what();
      return e.code() == ErrorCode::unsupported && what.find("f32") != std::string::npos &&
             what.find("f16") != std::string::npos && what.find(name_of(Op(op))) == 0;
    }
    return false;
  };
  CHECK(refused(Relu{}, {wide}, narrow));
  CHECK(refused(Scale{}, {wide}, narrow));
  CHECK(refused(MaxPool{}, {wide}, pooled));
  CHECK(refused(Lrn{}, {wide}, narrow));
  CHECK(refused(RoiPool{}, {wide, rois}, bins));
  CHECK(refused(RoiAlign{}, {wide, rois}, bins));
}

TEST_CASE("sizes that no grid and no int hold are refused by name", "[storage]") {
  const std::int64_t many = std::int64_t{1} << 32;
  const auto refused = [](const auto& op, const std::vector<TensorSpec>& in, const TensorSpec& to) {
    const std::vector<TensorSpec> out{to};
    try {
      cuda::prepare(op, KernelSpec{in, out}, cuda::Settings{});
    } catch (const Error& e) {
      return e.code() == ErrorCode::unsupported && std::string(e.what()).find(name_of(Op(op))) == 0;
    }
    return false;
  };
  CHECK(refused(RoiPool{65536, 1, 0.5f}, {{{1, 4, 4, 8}}, {{1, 5}}}, {{1, 65536, 1, 8}}));
  CHECK(refused(RoiAlign{1, 1, 0.5f, 0, false}, {{{1, many, 4, 8}}, {{1, 5}}}, {{1, 1, 1, 8}}));
  CHECK(refused(SelectDetections{}, {{{65536, 2}}, {{65536, 4}}, {{65536}, DType::i32}}, {{65536, 1, 6}}));
  CHECK(refused(Conv2d{}, {{{1, 1, many, 1}}, {{1, 1, 1, 1}}, {{1}}}, {{1, 1, many, 1}}));
}
