// The forward layers of layers.safetensors, each at the tolerance its README states: 1e-5 relative plus 1e-5
// absolute, pooling exact.
#include <string>

#include "golden/layer_files.h"

using namespace frcnn;
using golden::activation, golden::as_stored, golden::has, golden::integer, golden::vector_of;
using test::Tensor;

namespace {

constexpr double tolerance = 1e-5;

// Names of the cases that have an input and an output, and a weight or not.
std::vector<std::string> cases(const SafetensorsFile& file, const std::string& pattern, bool with_weight) {
  std::vector<std::string> names;
  for (const auto& match : golden::matching(file, "(" + pattern + ")\\.output")) {
    const std::string& name = match[1];
    if (has(file, name + ".input") && has(file, name + ".weight") == with_weight) names.push_back(name);
  }
  return names;
}

template <class O>
void compare(golden::Tally& tally, const SafetensorsFile& file, const std::string& name, const O& op,
             const std::vector<Tensor>& in, double allowed) {
  FRCNN_CASE(name);
  const Tensor expected = activation(file, name + ".output");
  const std::vector<Tensor> got = test::run_op(op, in, 2);
  CHECK(got[0].spec.shape == expected.spec.shape);
  tally.compare(name, vector_of(got[0]), vector_of(expected), allowed, allowed);
}

}  // namespace

TEST_CASE("golden: convolutions and fully connected layers", "[golden]") {
  const auto file = golden::open("layers.safetensors");
  if (!file) return;
  golden::Tally convolutions("convolutions"), linears("fully connected layers");
  for (const std::string& name : cases(*file, "\\w+", true)) {
    const std::vector<Tensor> in{activation(*file, name + ".input"), as_stored(*file, name + ".weight"),
                                 as_stored(*file, name + ".bias")};
    if (in[1].spec.shape.rank == 4) {
      const nlohmann::json geometry = golden::metadata(*file, name);
      compare(convolutions, *file, name, Conv2d{integer(geometry, "stride"), integer(geometry, "pad"), {}},
              in, tolerance);
    } else {
      compare(linears, *file, name, Linear{}, in, tolerance);
    }
  }
  convolutions.finish();
  linears.finish();
}

TEST_CASE("golden: pooling", "[golden]") {
  const auto file = golden::open("layers.safetensors");
  if (!file) return;
  golden::Tally tally("pooling");
  for (const std::string& name : cases(*file, "p\\d\\w*", false)) {
    const nlohmann::json geometry = golden::metadata(*file, name);
    const MaxPool op{integer(geometry, "kernel"), integer(geometry, "stride"), integer(geometry, "pad"),
                     Rounding::ceil};
    compare(tally, *file, name, op, {activation(*file, name + ".input")}, 0);
  }
  tally.finish();
}

TEST_CASE("golden: local response normalisation", "[golden]") {
  const auto file = golden::open("layers.safetensors");
  if (!file) return;
  golden::Tally tally("local response normalisation");
  for (const auto& [pattern, region] : {std::pair{"lrn_across\\w*", LrnRegion::across_channels},
                                        std::pair{"lrn_within\\w*", LrnRegion::within_channel}}) {
    for (const std::string& name : cases(*file, pattern, false)) {
      const nlohmann::json g = golden::metadata(*file, name);
      const Lrn op{region, integer(g, "local_size"), g.at("alpha").get<float>(), g.at("beta").get<float>(),
                   g.at("k").get<float>()};
      compare(tally, *file, name, op, {activation(*file, name + ".input")}, tolerance);
    }
  }
  tally.finish();
}

TEST_CASE("golden: softmax", "[golden]") {
  const auto file = golden::open("layers.safetensors");
  if (!file) return;
  golden::Tally tally("softmax");
  for (const std::string& name : cases(*file, "\\w*softmax\\w*", false)) {
    const Tensor in = activation(*file, name + ".input");
    // Maps hold background and foreground of each anchor, rows the classes of one box.
    const Shape& shape = in.spec.shape;
    compare(tally, *file, name, Softmax{shape.rank == 4 ? static_cast<int>(shape[3] / 2) : 1}, {in},
            tolerance);
  }
  tally.finish();
}
