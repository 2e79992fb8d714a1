// The gradients and losses of layers.safetensors, each at the tolerance its README states: 1e-5 relative plus
// 1e-5 absolute, weight gradients 1e-4, pooling exact, losses 1e-6 relative.
#include <string>

#include "golden/layer_files.h"

using namespace frcnn;
using golden::activation, golden::as_stored, golden::has, golden::integer, golden::vector_of;
using test::Tensor;

namespace {

constexpr double tolerance = 1e-5, weight_tolerance = 1e-4, loss_tolerance = 1e-6;

// Names of the cases that have a gradient of their input, and of a weight or not.
std::vector<std::string> cases(const SafetensorsFile& file, const std::string& pattern, bool with_weight) {
  std::vector<std::string> names;
  for (const auto& match : golden::matching(file, "(" + pattern + ")\\.grad_input")) {
    const std::string& name = match[1];
    if (has(file, name + ".weight") == with_weight) names.push_back(name);
  }
  return names;
}

void compare(golden::Tally& tally, const std::string& name, const Tensor& got, const Tensor& expected,
             double allowed) {
  CHECK(got.spec.shape == expected.spec.shape);
  tally.compare(name, vector_of(got), vector_of(expected), allowed, allowed);
}

}  // namespace

TEST_CASE("golden: gradients of convolutions and fully connected layers", "[golden]") {
  const auto file = golden::open("layers.safetensors");
  if (!file) return;
  golden::Tally data("gradients of sources"), weights("gradients of weights");
  for (const std::string& name : cases(*file, "\\w+", true)) {
    FRCNN_CASE(name);
    const Tensor src = activation(*file, name + ".input"), weight = as_stored(*file, name + ".weight");
    const Tensor d_dst = activation(*file, name + ".grad_output");
    const Shape &s = src.spec.shape, &w = weight.spec.shape;
    std::vector<Tensor> d_src, d_weight;
    if (w.rank == 4) {
      const nlohmann::json geometry = golden::metadata(*file, name);
      const int stride = integer(geometry, "stride"), pad = integer(geometry, "pad");
      d_src = test::run_op(Conv2dBackwardData{stride, pad, s[1], s[2]}, {d_dst, weight}, 2);
      d_weight = test::run_op(Conv2dBackwardWeight{stride, pad, w[2], w[3], false}, {src, d_dst}, 2);
    } else {
      d_src = test::run_op(LinearBackwardData{}, {d_dst, weight}, 2);
      d_weight = test::run_op(LinearBackwardWeight{}, {src, d_dst}, 2);
    }
    compare(data, name + ".grad_input", d_src[0], activation(*file, name + ".grad_input"), tolerance);
    compare(weights, name + ".grad_weight", d_weight[0], as_stored(*file, name + ".grad_weight"),
            weight_tolerance);
    compare(weights, name + ".grad_bias", d_weight[1], as_stored(*file, name + ".grad_bias"),
            weight_tolerance);
  }
  data.finish();
  weights.finish();
}

TEST_CASE("golden: gradients of pooling", "[golden]") {
  const auto file = golden::open("layers.safetensors");
  if (!file) return;
  golden::Tally tally("gradients of pooling");
  for (const std::string& name : cases(*file, "p\\d\\w*", false)) {
    FRCNN_CASE(name);
    const nlohmann::json geometry = golden::metadata(*file, name);
    const MaxPool pool{integer(geometry, "kernel"), integer(geometry, "stride"), integer(geometry, "pad"),
                       Rounding::ceil, true};
    const Tensor src = activation(*file, name + ".input");
    const std::vector<Tensor> forward = test::run_op(pool, {src}, 2);
    compare(tally, name + ".output", forward[0], activation(*file, name + ".output"), 0);
    const Shape& s = src.spec.shape;
    const std::vector<Tensor> got = test::run_op(MaxPoolBackward{pool, s[1], s[2]},
                                                 {activation(*file, name + ".grad_output"), forward[1]}, 2);
    compare(tally, name + ".grad_input", got[0], activation(*file, name + ".grad_input"), 0);
  }
  tally.finish();
}

TEST_CASE("golden: gradients of local response normalisation", "[golden]") {
  const auto file = golden::open("layers.safetensors");
  if (!file) return;
  golden::Tally tally("gradients of local response normalisation");
  for (const auto& [pattern, region] : {std::pair{"lrn_across\\w*", LrnRegion::across_channels},
                                        std::pair{"lrn_within\\w*", LrnRegion::within_channel}}) {
    for (const std::string& name : cases(*file, pattern, false)) {
      FRCNN_CASE(name);
      const nlohmann::json g = golden::metadata(*file, name);
      const Lrn lrn{region, integer(g, "local_size"), g.at("alpha").get<float>(), g.at("beta").get<float>(),
                    g.at("k").get<float>()};
      const std::vector<Tensor> got =
          test::run_op(LrnBackward{lrn},
                       {activation(*file, name + ".grad_output"), activation(*file, name + ".input")}, 2);
      compare(tally, name + ".grad_input", got[0], activation(*file, name + ".grad_input"), tolerance);
    }
  }
  tally.finish();
}

TEST_CASE("golden: the softmax loss and its gradient", "[golden]") {
  const auto file = golden::open("layers.safetensors");
  if (!file) return;
  golden::Tally losses("softmax losses"), gradients("gradients of softmax losses");
  for (const auto& match : golden::matching(*file, R"((ce\w*)\.labels)")) {
    const std::string& name = match[1];
    FRCNN_CASE(name);
    // Channels are the classes, in maps as in rows.
    const Tensor score = activation(*file, name + ".input");
    const auto labels = golden::values<std::int32_t>(*file, name + ".labels");
    Shape rows = score.spec.shape;
    rows[rows.rank - 1] = 1;
    const std::vector<Tensor> got = test::run_op(SoftmaxLoss{}, {score, test::i32(rows, labels)}, 2);
    losses.compare(name, vector_of(got[0]), golden::values<double>(*file, name + ".loss"), 0, loss_tolerance);
    compare(gradients, name + ".grad_input", got[1], activation(*file, name + ".grad_input"), tolerance);
  }
  losses.finish();
  gradients.finish();
}

TEST_CASE("golden: the smooth L1 loss and its gradient", "[golden]") {
  const auto file = golden::open("layers.safetensors");
  if (!file) return;
  golden::Tally losses("smooth L1 losses"), gradients("gradients of smooth L1 losses");
  for (const auto& match : golden::matching(*file, R"((smoothl1_s(\d+)\w*)\.pred)")) {
    const std::string& name = match[1];
    FRCNN_CASE(name);
    std::vector<Tensor> in;
    for (const char* part : {".pred", ".target", ".inside", ".outside"})
      in.push_back(as_stored(*file, name + part));
    const std::vector<Tensor> got = test::run_op(SmoothL1Loss{std::stod(match[2])}, in, 2);
    losses.compare(name, vector_of(got[0]), golden::values<double>(*file, name + ".loss"), 0, loss_tolerance);
    compare(gradients, name + ".grad_pred", got[1], as_stored(*file, name + ".grad_pred"), tolerance);
  }
  losses.finish();
  gradients.finish();
}
