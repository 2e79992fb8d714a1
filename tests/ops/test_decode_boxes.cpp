#include <fmt/format.h>

#include "op_runner.h"
#include "reference/decode_boxes.h"

using namespace frcnn;

namespace {

constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

std::vector<float> random_rois(std::int64_t batch, std::int64_t per_image, unsigned salt) {
  const auto random = test::uniform({batch * per_image, 4}, 0, 1, salt);
  std::vector<float> rois;
  for (std::int64_t r = 0; r < batch * per_image; ++r) {
    const auto u = random.as<float>().subspan(static_cast<std::size_t>(r) * 4, 4);
    const float x = u[0] * 300, y = u[1] * 200;
    rois.insert(rois.end(), {static_cast<float>(r / per_image), x, y, x + u[2] * 200, y + u[3] * 200});
  }
  return rois;
}

}  // namespace

TEST_CASE("decode_boxes agrees with the double reference") {
  struct Case {
    std::int64_t batch, per_image, classes;
  };
  for (const Case& c : {Case{1, 1, 2}, Case{1, 33, 21}, Case{2, 7, 4}, Case{3, 5, 1}, Case{1, 0, 21}}) {
    FRCNN_CASE(fmt::format("N {} M {} C {}", c.batch, c.per_image, c.classes));
    const auto rois = random_rois(c.batch, c.per_image, 1);
    const auto deltas = test::uniform({c.batch * c.per_image, 4 * c.classes}, -1, 1, 2);
    std::vector<float> info, sizes;
    for (std::int64_t n = 0; n < c.batch; ++n) {
      const auto k = static_cast<float>(n);
      info.insert(info.end(), {600, 800, 1.6f + k / 3});
      sizes.insert(sizes.end(), {375 - 40 * k, 500 - 50 * k});
    }
    const auto out = test::run_op_any_threads(
        DecodeBoxes{}, {test::f32({c.batch * c.per_image, 5}, rois), deltas, test::f32({c.batch, 3}, info),
                        test::f32({c.batch, 2}, sizes)});
    for (std::size_t n = 0; n < static_cast<std::size_t>(c.batch); ++n) {
      const auto rows = static_cast<std::size_t>(c.per_image),
                 columns = static_cast<std::size_t>(4 * c.classes);
      const auto roi = std::span<const float>(rois).subspan(n * rows * 5, rows * 5);
      const auto delta = deltas.as<float>().subspan(n * rows * columns, rows * columns);
      const float scale = info[n * 3 + 2], h = sizes[n * 2], w = sizes[n * 2 + 1];
      test::check_error(out[0].as<float>().subspan(n * rows * columns, rows * columns),
                        reference::decode_boxes<float>(roi, delta, scale, h, w),
                        reference::decode_boxes<double>(roi, delta, scale, h, w));
    }
  }
}

TEST_CASE("decode_boxes of inverted and huge rois stays inside the image") {
  const std::vector<float> rois{0, 50, 60, 10, 20, 0, -1e9f, -1e9f, 1e9f, 1e9f, 0, 3e30f, 0, -3e30f, 5, 0, 7, 7, 7, 7};
  const auto deltas = test::uniform({4, 8}, -1, 1, 2);
  const auto out = test::run_op_any_threads(
      DecodeBoxes{}, {test::f32({4, 5}, rois), deltas, test::f32({1, 3}, {600, 800, 2}), test::f32({1, 2}, {300, 400})});
  const auto want = reference::decode_boxes<float>(rois, deltas.as<float>(), 2, 300, 400);
  const auto got = out[0].as<float>();
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    INFO("element " << i);
    CHECK((got[i] >= 0 && got[i] <= (i % 2 ? 299.0f : 399.0f)));
    CHECK(got[i] == Approx(want[i]).epsilon(1e-5).margin(1e-3));
  }
}

TEST_CASE("decode_boxes divides by the scale as a float") {
  // 333 / 1.6f differs from 333 * (1 / 1.6f) in the last bit.
  const float scale = 1.6f, x = 333;
  const auto out =
      test::run_op(DecodeBoxes{}, {test::f32({1, 5}, {0, x, x, x, x}), test::f32({1, 4}, {0, 0, -200, -200}),
                                   test::f32({1, 3}, {600, 800, scale}), test::f32({1, 2}, {1000, 1000})});
  CHECK(out[0].as<float>()[0] == x / scale + 0.5f);  // no width is left, so all corners are the centre
}

TEST_CASE("decode_boxes clips what overflows and passes NaN on") {
  const auto out =
      test::run_op(DecodeBoxes{}, {test::f32({2, 5}, {0, 10, 10, 20, 20, 0, 10, 10, 20, 20}),
                                   test::f32({2, 4}, {0, 0, 1000, 1000, nan_value, 0, 0, 0}),
                                   test::f32({1, 3}, {600, 800, 2}), test::f32({1, 2}, {300, 400})});
  const auto box = out[0].as<float>();
  CHECK((box[0] == 0 && box[1] == 0 && box[2] == 399 && box[3] == 299));
  CHECK((std::isnan(box[4]) && !std::isnan(box[5]) && std::isnan(box[6])));
}
