// ClipGradients and Sgd.
#include <limits>
#include <string>

#include "op_runner.h"

using namespace frcnn;
using namespace frcnn::test;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

std::vector<float> floats(const Tensor& t) { return {t.as<float>().begin(), t.as<float>().end()}; }

struct Weights {
  Tensor w, v, average;
};

// One update; every step in T.
template <class T>
std::vector<std::vector<T>> updated(const Sgd& op, const Tensor& gradient, float factor,
                                    const std::vector<float>& rates, const Weights& from) {
  std::vector<std::vector<T>> to(op.average ? 3 : 2);
  for (std::size_t i = 0; i < gradient.as<float>().size(); ++i) {
    const T w = static_cast<T>(from.w.as<float>()[i]);
    const T g =
        static_cast<T>(op.grad_scale) * static_cast<T>(factor) * static_cast<T>(gradient.as<float>()[i]) +
        static_cast<T>(op.decay) * w;
    const T v = static_cast<T>(op.momentum) * static_cast<T>(from.v.as<float>()[i]) +
                static_cast<T>(rates[0]) * static_cast<T>(op.lr_mult) * g;
    to[0].push_back(w - v);
    to[1].push_back(v);
    if (!op.average) continue;
    const T a = static_cast<T>(from.average.as<float>()[i]);
    to[2].push_back(a + (1 - static_cast<T>(rates[1])) * (w - v - a));
  }
  return to;
}

}  // namespace

TEST_CASE("clip_gradients: norms of each gradient and of all, and the factor", "[clip_gradients]") {
  for (const auto& shapes : {std::vector<Shape>{{1}}, std::vector<Shape>{{3, 5}, {5}},
                             std::vector<Shape>{{40000}, {7}, {2, 3, 3, 3}, {32768}, {32769}}}) {
    for (const double scale : {1.0, 0.5}) {
      std::vector<Tensor> gradients;
      std::vector<double> expected;
      double all = 0;
      for (const Shape& shape : shapes) {
        gradients.push_back(uniform(shape, -1, 1, static_cast<unsigned>(gradients.size()) + 1));
        double sum = 0;
        for (const float v : gradients.back().as<float>())
          sum += static_cast<double>(v) * static_cast<double>(v);
        expected.push_back(std::sqrt(sum) * scale);
        all += sum;
      }
      expected.push_back(std::sqrt(all) * scale);
      const double norm = expected.back();
      for (const double most : {0.0, 0.5 * norm, 2 * norm}) {
        FRCNN_CASE("clip_gradients of " + std::to_string(shapes.size()) + ", at most " +
                   std::to_string(most));
        const auto got = run_op_any_threads(ClipGradients{most, scale}, gradients);
        CHECK(max_error(got[1].as<float>(), expected) <= 1e-7 * norm);
        CHECK(static_cast<double>(got[0].as<float>()[0]) ==
              Approx(most > 0 && most < norm ? most / norm : 1.0).epsilon(1e-7));
      }
    }
  }
}

TEST_CASE("clip_gradients: huge, zero and non-finite gradients show in the norms", "[clip_gradients]") {
  const auto run = [](float v) {
    return run_op_any_threads(ClipGradients{1, 1}, {f32({3}, {0, v, 0}), f32({1}, {3})});
  };
  CHECK(run(0)[1].as<float>()[0] == 0);
  CHECK(run(0)[0].as<float>()[0] == Approx(1.0 / 3));
  CHECK(run(3e38f)[1].as<float>()[0] == 3e38f);  // its square is no float
  CHECK(run(3e38f)[0].as<float>()[0] == Approx(1.0 / 3e38));
  CHECK(run(infinity)[1].as<float>()[0] == infinity);
  CHECK(run(infinity)[1].as<float>()[2] == infinity);
  CHECK(std::isnan(run(nan_value)[1].as<float>()[0]));
  CHECK(std::isnan(run(nan_value)[1].as<float>()[2]));
  CHECK(run(nan_value)[1].as<float>()[1] == 3);
  // No step is made with such a factor.
  for (const float bad : {infinity, -infinity, nan_value}) CHECK(std::isnan(run(bad)[0].as<float>()[0]));
}

TEST_CASE("sgd: a factor that is no number leaves everything as it is", "[sgd]") {
  const std::vector<Tensor> states{f32({2}, {1, 2}), f32({2}, {3, 4}), f32({2}, {5, 6})};
  const auto got = run_op_any_threads(
      Sgd{0.9, 1, 0.1, 1, true}, {f32({2}, {1, 1}), f32({1}, {nan_value}), f32({2}, {0.1f, 0.5f})}, states);
  CHECK(same_bytes(got, states));
}

TEST_CASE("sgd: at most twice the error of plain float loops", "[sgd]") {
  for (const Shape& shape : {Shape{1}, Shape{7, 11}, Shape{4099}, Shape{8, 3, 5, 5}}) {
    for (const Sgd& op :
         {Sgd{}, Sgd{0.9, 2, 0, 0.5, false}, Sgd{0, 1, 5e-4, 1, true}, Sgd{0.9, 1, 5e-4, 0.25, true}}) {
      FRCNN_CASE("sgd " + to_string(shape) + ", average " + std::to_string(op.average));
      ErrorTally tally[3];
      for (unsigned round = 0; round < std::min(rounds_for(shape), 200u); ++round) {
        const Weights from{uniform(shape, -1, 1, 4 * round + 1), uniform(shape, -0.1f, 0.1f, 4 * round + 2),
                           uniform(shape, -1, 1, 4 * round + 3)};
        const Tensor gradient = uniform(shape, -5, 5, 4 * round + 4);
        const std::vector<float> rates{0.01f, 0.998f};
        std::vector<Tensor> states{from.w, from.v};
        if (op.average) states.push_back(from.average);
        const std::vector<Tensor> in{gradient, f32({1}, {0.75f}), f32({2}, rates)};
        const auto got = round == 0 ? run_op_any_threads(op, in, states) : run_op(op, in, 1, states);
        const auto plain = updated<float>(op, gradient, 0.75f, rates, from);
        const auto exact = updated<double>(op, gradient, 0.75f, rates, from);
        for (std::size_t i = 0; i < states.size(); ++i) tally[i].add(got[i].as<float>(), plain[i], exact[i]);
      }
      for (std::size_t i = 0; i < (op.average ? 3u : 2u); ++i) tally[i].check();
    }
  }
}

// The rate is inside the velocity: after a drop of the rate the old momentum goes on at the old one.
TEST_CASE("sgd: the published rule, step by step", "[sgd]") {
  const Sgd op{0.5, 2, 0.25, 1, true};
  std::vector<Tensor> states{f32({1}, {4}), f32({1}, {0}), f32({1}, {4})};
  const auto step = [&](float gradient, float rate) {
    states = run_op_any_threads(op, {f32({1}, {gradient}), f32({1}, {1}), f32({2}, {rate, 0.5f})}, states);
  };
  step(1, 0.25f);  // g = 1 + 0.25 * 4 = 2; v = 0.5 * 2 = 1; w = 3; a = 3.5
  CHECK(floats(states[0]) == std::vector<float>{3});
  CHECK(floats(states[1]) == std::vector<float>{1});
  CHECK(floats(states[2]) == std::vector<float>{3.5f});
  step(0.25f, 0.125f);  // g = 0.25 + 0.75 = 1; v = 0.5 + 0.25 = 0.75; w = 2.25; a = 2.875
  CHECK(floats(states[0]) == std::vector<float>{2.25f});
  CHECK(floats(states[1]) == std::vector<float>{0.75f});
  CHECK(floats(states[2]) == std::vector<float>{2.875f});
}
