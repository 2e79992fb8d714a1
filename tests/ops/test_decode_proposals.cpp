#include <fmt/format.h>

#include "op_runner.h"
#include "reference/decode_proposals.h"

using namespace frcnn;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

DecodeProposals some_op(std::size_t anchors) {
  DecodeProposals op;
  for (std::size_t a = 0; a < anchors; ++a) {
    const auto s = static_cast<float>(8 << (a % 4)), t = static_cast<float>(12 + 9 * a);
    op.base_anchors.push_back({7.5f - s, 7.5f - t, 7.5f + s, 7.5f + t});
  }
  return op;
}

struct Inputs {
  test::Tensor prob, deltas, im_info;
  std::vector<test::Tensor> all() const { return {prob, deltas, im_info}; }
};

// One anchor of 31 x 31 pixels in one cell, so that a test can write its one score and box down.
struct OneAnchor {
  DecodeProposals op;
  std::vector<test::Tensor> run(float score, std::vector<float> deltas,
                                std::vector<float> im_info = {100, 80, 1}, float background = 0.5f) {
    op.base_anchors = {{0, 0, 30, 30}};
    return test::run_op_any_threads(op, {test::f32({1, 1, 1, 2}, {background, score}),
                                         test::f32({1, 1, 1, 4}, deltas), test::f32({1, 3}, im_info)});
  }
};

std::vector<float> first(const std::vector<test::Tensor>& out) {
  const auto box = out[0].as<float>();
  return {box.begin(), box.begin() + 4};
}
float score(const std::vector<test::Tensor>& out, std::size_t i = 0) { return out[1].as<float>()[i]; }
int flag(const std::vector<test::Tensor>& out) { return out[2].as<std::int32_t>()[0]; }

}  // namespace

TEST_CASE("decode_proposals agrees with the double reference") {
  struct Case {
    std::int64_t batch, height, width;
    std::size_t anchors;
  };
  for (const Case& c :
       {Case{1, 1, 1, 1}, Case{1, 3, 5, 9}, Case{1, 7, 2, 12}, Case{1, 1, 17, 3}, Case{2, 4, 6, 5}}) {
    FRCNN_CASE(fmt::format("N {} H {} W {} A {}", c.batch, c.height, c.width, c.anchors));
    const DecodeProposals op = some_op(c.anchors);
    const auto a = static_cast<std::int64_t>(c.anchors);
    std::vector<float> info;
    for (std::int64_t n = 0; n < c.batch; ++n) {
      info.insert(info.end(),
                  {16.0f * static_cast<float>(c.height) - 3, 16.0f * static_cast<float>(c.width) - 5, 1.6f});
    }
    const Inputs in{test::uniform({c.batch, c.height, c.width, 2 * a}, 0, 1, 1),
                    test::uniform({c.batch, c.height, c.width, 4 * a}, -1.5f, 1.5f, 2),
                    test::f32({c.batch, 3}, info)};
    const auto out = test::run_op_any_threads(op, in.all());
    CHECK(flag(out) == 0);
    const auto per_image = static_cast<std::size_t>(c.height * c.width * a);
    for (std::size_t n = 0; n < static_cast<std::size_t>(c.batch); ++n) {
      const auto prob = in.prob.as<float>().subspan(n * per_image * 2, per_image * 2);
      const auto deltas = in.deltas.as<float>().subspan(n * per_image * 4, per_image * 4);
      const auto im_info = in.im_info.as<float>().subspan(n * 3, 3);
      const auto exact = reference::decode_proposals<double>(op, c.height, c.width, prob, deltas, im_info);
      const auto plain = reference::decode_proposals<float>(op, c.height, c.width, prob, deltas, im_info);
      test::check_error(out[0].as<float>().subspan(n * per_image * 4, per_image * 4), plain.boxes,
                        exact.boxes);
      for (std::size_t i = 0; i < per_image; ++i) {
        const double limit = static_cast<double>(op.min_size) * static_cast<double>(im_info[2]);
        if (std::abs(exact.shortest[i] - limit) < 1e-3) continue;  // rounding decides
        CHECK(static_cast<double>(score(out, n * per_image + i)) == exact.scores[i]);
      }
    }
  }
}

TEST_CASE("decode_proposals keeps a box of exactly the minimum size") {
  OneAnchor one;
  one.op.min_size = 16;
  // 31 pixels decode to sides of 32 (no -1 at the right edge); at scale 2 the limit is 32.
  CHECK(score(one.run(0.75f, {0, 0, 0, 0}, {100, 80, 2})) == 0.75f);
  CHECK(score(one.run(0.75f, {0, 0, 0, 0}, {100, 80, 2.001f})) == -infinity);
  CHECK(score(one.run(0.75f, {0, 0, 0, 0}, {31, 80, 2})) == -infinity);  // clipped to 31 pixels
}

TEST_CASE("decode_proposals survives deltas that overflow") {
  OneAnchor one;
  auto out = one.run(0.5f, {0, 0, 1000, 1000});  // infinitely large: the image
  CHECK(first(out) == std::vector<float>{0, 0, 79, 99});
  CHECK(score(out) == 0.5f);
  CHECK(flag(out) == 0);
  CHECK(score(one.run(0.5f, {0, 0, -1000, 0})) == -infinity);  // one pixel wide
  out = one.run(0.5f, {3e38f, 0, 1000, 0});                    // infinity minus infinity: no box
  CHECK(score(out) == -infinity);
  CHECK(flag(out) == 0);  // the inputs are finite
}

TEST_CASE("decode_proposals reports values that are not finite and lets none through") {
  OneAnchor one;
  for (const float bad : {nan_value, infinity, -infinity}) {
    CHECK(flag(one.run(bad, {0, 0, 0, 0})) == 1);
    CHECK(score(one.run(bad, {0, 0, 0, 0})) == -infinity);
    for (std::size_t k = 0; k < 4; ++k) {
      std::vector<float> deltas(4, 0.0f);
      deltas[k] = bad;
      CHECK(flag(one.run(0.5f, deltas)) == 1);
      CHECK(score(one.run(0.5f, deltas)) == -infinity);
    }
    CHECK(flag(one.run(0.5f, {0, 0, 0, 0}, {100, 80, 1}, bad)) == 0);  // the background score decides nothing
  }
}

TEST_CASE("decode_proposals drops the anchors of a batch's padding") {
  const DecodeProposals op = some_op(2);
  const std::int64_t h = 4, w = 5;
  const auto prob = test::uniform({2, h, w, 4}, 0.1f, 1, 3),
             deltas = test::uniform({2, h, w, 8}, -0.1f, 0.1f, 4);
  // The second image has 40 of 64 rows and 50 of 80 columns: 3 rows of 4 cells are its own, of which the last
  // column overhangs it, as it would if the image were alone.
  const auto im_info = test::f32({2, 3}, {64, 80, 0.05f, 40, 50, 0.05f});
  const auto run = [&](std::vector<std::int32_t> sizes) {
    return test::run_op_any_threads(op, {prob, deltas, im_info, test::i32({2, 4}, sizes)});
  };
  const std::size_t per_image = 40;
  const auto padded = run({-1, -1, 4, 5, -1, -1, 3, 4}), whole = run({-1, -1, 4, 5, -1, -1, 99, 5}),
             unsaid = test::run_op_any_threads(op, {prob, deltas, im_info});
  CHECK(test::same_bytes(whole, unsaid));
  CHECK(padded[0].bytes == whole[0].bytes);
  for (std::size_t i = 0; i < per_image; ++i) {
    CHECK(score(padded, i) == score(whole, i));
    const std::size_t row = i / 2 / w, column = i / 2 % w;
    const float expected = row < 3 && column < 4 ? score(whole, per_image + i) : -infinity;
    CHECK(score(whole, per_image + i) > 0);
    CHECK(score(padded, per_image + i) == expected);
  }
  const auto nothing = run({-1, -1, 0, 0, -1, -1, 4, -2});
  for (std::size_t i = 0; i < 2 * per_image; ++i) CHECK(score(nothing, i) == -infinity);
}
