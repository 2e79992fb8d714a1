#include <cfloat>
#include <limits>
#include <string>

#include "central_differences.h"
#include "op_runner.h"
#include "reference/smooth_l1_loss.h"
#include "reference/softmax_loss.h"

using namespace frcnn;
using namespace frcnn::test;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

// -1 to classes - 1.
Tensor labels_for(Shape shape, int classes, unsigned salt) {
  Tensor labels({shape, DType::i32});
  const Tensor random = uniform(shape, 0, 1, salt);
  for (std::size_t i = 0; i < random.as<float>().size(); ++i)
    labels.as<std::int32_t>()[i] =
        static_cast<std::int32_t>(random.as<float>()[i] * static_cast<float>(classes + 1)) - 1;
  return labels;
}

template <class T>
reference::Loss<T> softmax_reference(const SoftmaxLoss& op, const Tensor& score, const Tensor& labels) {
  const Shape& s = score.spec.shape;
  return reference::softmax_loss<T>(op, static_cast<std::size_t>(s[s.rank - 1]), score.as<float>(),
                                    labels.as<std::int32_t>());
}

struct L1Inputs {
  Tensor pred, target, inside, outside;
  std::vector<Tensor> all() const { return {pred, target, inside, outside}; }
};

// Weights of 0 and others.
L1Inputs l1_inputs(const Shape& shape, float reach, unsigned salt) {
  L1Inputs in{on_grid(shape, -reach, reach, salt), on_grid(shape, -reach, reach, salt + 1),
              uniform(shape, -1, 2, salt + 2), uniform(shape, -0.01f, 0.03f, salt + 3)};
  for (float& w : in.inside.as<float>()) w = std::max(w, 0.0f);
  for (float& w : in.outside.as<float>()) w = std::max(w, 0.0f);
  return in;
}

template <class T>
reference::Loss<T> l1_reference(const SmoothL1Loss& op, const L1Inputs& in, T divisor) {
  return reference::smooth_l1_loss<T>(op, in.pred.as<float>(), in.target.as<float>(), in.inside.as<float>(),
                                      in.outside.as<float>(), divisor);
}

}  // namespace

TEST_CASE("softmax_loss: at most twice the error of plain float loops", "[softmax_loss]") {
  struct Case {
    Shape score;
    int groups;
    double divisor;
  };
  for (const Case& c : {Case{{1, 1}, 1, 0}, Case{{20, 21}, 1, 0}, Case{{1, 5, 7, 18}, 9, 0},
                        Case{{2, 3, 4, 24}, 12, 256}, Case{{128, 2}, 1, 0}, Case{{1, 1, 1, 2}, 1, 0},
                        Case{{3, 5, 6}, 2, 7}, Case{{2, 14, 21, 18}, 9, 256}}) {
    FRCNN_CASE("softmax_loss " + to_string(c.score) + ", groups " + std::to_string(c.groups));
    const SoftmaxLoss op{c.groups, c.divisor};
    Shape rows = c.score;
    const int classes = static_cast<int>(c.score[c.score.rank - 1]) / c.groups;
    rows[rows.rank - 1] = c.groups;
    ErrorTally gradient;
    for (unsigned round = 0; round < std::min(rounds_for(c.score), 100u); ++round) {
      const Tensor score = uniform(c.score, -5, 5, 2 * round + 1),
                   labels = labels_for(rows, classes, 2 * round + 2);
      const auto got = round == 0 ? run_op_any_threads(op, {score, labels}) : run_op(op, {score, labels});
      const auto exact = softmax_reference<double>(op, score, labels);
      gradient.add(got[1].as<float>(), softmax_reference<float>(op, score, labels).gradient, exact.gradient);
      CHECK(static_cast<double>(got[0].as<float>()[0]) == Approx(exact.loss).epsilon(1e-6).margin(1e-7));
    }
    gradient.check();
  }
}

TEST_CASE("softmax_loss: agrees with differences of the loss", "[softmax_loss]") {
  for (const auto& [shape, groups] : {std::pair{Shape{4, 5}, 1}, std::pair{Shape{1, 2, 3, 6}, 3}}) {
    const SoftmaxLoss op{groups, 0};
    const Tensor score = on_grid(shape, -3, 3, 1);
    const std::int64_t channels = shape[shape.rank - 1];
    Shape rows = shape;
    rows[rows.rank - 1] = groups;
    const Tensor labels = labels_for(rows, static_cast<int>(channels) / groups, 2);
    const auto exact =
        central_differences(score.as<float>(), std::vector<float>{1}, [&](std::span<const float> x) {
          return std::vector<double>{reference::softmax_loss<double>(op, static_cast<std::size_t>(channels),
                                                                     x, labels.as<std::int32_t>())
                                         .loss};
        });
    CHECK(max_error(run_op(op, {score, labels})[1].as<float>(), exact) < 1e-6);
  }
}

TEST_CASE("softmax_loss: nothing counts, nothing is learnt", "[softmax_loss]") {
  const auto got = run_op_any_threads(
      SoftmaxLoss{2, 0}, {f32({2, 4}, {1, 2, 3, nan_value, 5, 6, 7, 8}), i32({2, 2}, {-1, -1, -1, -1})});
  CHECK(got[0].as<float>()[0] == 0);
  for (const float v : got[1].as<float>()) CHECK(v == 0);
  const auto none =
      run_op_any_threads(SoftmaxLoss{}, {Tensor({Shape{0, 21}, DType::f32}), Tensor({Shape{0}, DType::i32})});
  CHECK(none[0].as<float>()[0] == 0);
}

TEST_CASE("softmax_loss: a certain mistake costs -log(FLT_MIN), and its gradient is whole",
          "[softmax_loss]") {
  const auto got = run_op_any_threads(SoftmaxLoss{}, {f32({1, 2}, {0, 500}), i32({1}, {0})});
  CHECK(got[0].as<float>()[0] == Approx(-std::log(static_cast<double>(FLT_MIN))));
  CHECK(got[1].as<float>()[0] == -1);
  CHECK(got[1].as<float>()[1] == 1);
}

TEST_CASE("softmax_loss: labels beyond the classes and scores that are no numbers make the loss NaN",
          "[softmax_loss]") {
  const auto loss = [](const std::vector<float>& score, std::int32_t label) {
    return run_op_any_threads(SoftmaxLoss{}, {f32({1, 3}, score), i32({1}, {label})})[0].as<float>()[0];
  };
  CHECK(std::isfinite(loss({1, 2, 3}, 2)));
  CHECK(std::isnan(loss({1, 2, 3}, 3)));
  CHECK(std::isnan(loss({1, 2, 3}, std::numeric_limits<std::int32_t>::max())));
  for (std::size_t i = 0; i < 3; ++i) {
    for (const float bad : {nan_value, infinity}) {
      std::vector<float> score{1, 2, 3};
      score[i] = bad;
      CHECK(std::isnan(loss(score, 0)));
    }
  }
  CHECK(std::isfinite(loss({1, -infinity, 3}, 0)));
}

TEST_CASE("smooth_l1_loss: at most twice the error of plain float loops", "[smooth_l1_loss]") {
  for (const Shape& shape :
       {Shape{1, 1}, Shape{16, 84}, Shape{2, 5, 7, 36}, Shape{3, 4}, Shape{1, 14, 21, 36}}) {
    for (const double sigma : {1.0, 3.0}) {
      const SmoothL1Loss op{sigma};
      FRCNN_CASE("smooth_l1_loss " + to_string(shape) + ", sigma " + std::to_string(sigma));
      ErrorTally gradient;
      for (unsigned round = 0; round < std::min(rounds_for(shape), 100u); ++round) {
        const L1Inputs in = l1_inputs(shape, 2, 4 * round + 1);
        const auto images = static_cast<double>(shape[0]);
        const auto got = round == 0 ? run_op_any_threads(op, in.all()) : run_op(op, in.all());
        const auto exact = l1_reference<double>(op, in, images);
        gradient.add(got[1].as<float>(), l1_reference<float>(op, in, static_cast<float>(images)).gradient,
                     exact.gradient);
        CHECK(static_cast<double>(got[0].as<float>()[0]) == Approx(exact.loss).epsilon(1e-6));
      }
      gradient.check();
    }
  }
}

TEST_CASE("smooth_l1_loss: agrees with differences of the loss", "[smooth_l1_loss]") {
  // Away from the corners, which lie at a distance of 1 / sigma^2: the loss is a parabola here and a line
  // there.
  const L1Inputs in{f32({2, 3}, {0.25f, -0.25f, 5, -5, 0, 3}), f32({2, 3}, {0.125f, 0, 1, 1, 0, 3}),
                    f32({2, 3}, {1, 0.5f, 1, 2, 1, 0}), f32({2, 3}, {1, 0.25f, 2, 0.5f, 1, 1})};
  const SmoothL1Loss op{1};
  const auto exact =
      central_differences(in.pred.as<float>(), std::vector<float>{1}, [&](std::span<const float> x) {
        return std::vector<double>{reference::smooth_l1_loss<double>(op, x, in.target.as<float>(),
                                                                     in.inside.as<float>(),
                                                                     in.outside.as<float>(), 2.0)
                                       .loss};
      });
  CHECK(max_error(run_op(op, in.all())[1].as<float>(), exact) < 1e-7);
}

TEST_CASE("smooth_l1_loss: divided by the counts when they are given", "[smooth_l1_loss]") {
  const SmoothL1Loss op{1};
  const L1Inputs in = l1_inputs({6, 8}, 2, 1);
  const auto with = [&](const std::vector<std::int32_t>& counts) {
    std::vector<Tensor> all = in.all();
    all.push_back(i32({static_cast<std::int64_t>(counts.size())}, counts));
    return run_op_any_threads(op, all);
  };
  for (const auto& [counts, divisor] :
       {std::pair{std::vector<std::int32_t>{5}, 5.0}, std::pair{std::vector<std::int32_t>{2, 1}, 3.0},
        std::pair{std::vector<std::int32_t>{0, 0}, 1.0}}) {
    const auto exact = l1_reference<double>(op, in, divisor);
    const std::vector<Tensor> got = with(counts);
    CHECK(static_cast<double>(got[0].as<float>()[0]) == Approx(exact.loss).epsilon(1e-6));
    CHECK(max_error(got[1].as<float>(), exact.gradient) < 1e-7);
  }
}

TEST_CASE("smooth_l1_loss: only what has a weight must be a number", "[smooth_l1_loss]") {
  const SmoothL1Loss op{3};
  const auto run = [&](float pred, float target, float inside, float outside) {
    const auto got = run_op_any_threads(
        op, {f32({1, 1}, {pred}), f32({1, 1}, {target}), f32({1, 1}, {inside}), f32({1, 1}, {outside})});
    return std::pair{got[0].as<float>()[0], got[1].as<float>()[0]};
  };
  for (const float bad : {nan_value, infinity, -infinity}) {
    CHECK(run(1, bad, 0, 1) == std::pair{0.0f, 0.0f});
    CHECK(run(1, bad, 1, 0) == std::pair{0.0f, 0.0f});
    CHECK_FALSE(std::isfinite(run(1, bad, 1, 1).first));
    CHECK_FALSE(std::isfinite(run(bad, 1, 1, 1).first));
  }
  CHECK(std::isnan(run(nan_value, 1, 1, 1).second));
  // Exactly at the corner the line begins.
  CHECK(run(0.25f, 0, 1, 1).second == 1);
  CHECK(run(-0.25f, 0, 1, 1).second == -1);
}
