#include <functional>
#include <string>

#include "catch.h"
#include "frcnn/error.h"
#include "graph/lower.h"

using namespace frcnn;

namespace {

// conv -> relu -> linear -> relu -> scale, as in a detector's trunk and head.
Graph trunk() {
  Graph g;
  const ValueId in = g.input("in", {Shape{1, 6, 6, 2}});
  const ValueId cw = g.weight("conv.weight", Shape{3, 2, 3, 3}), cb = g.weight("conv.bias", Shape{3});
  const ValueId conv = g.add1(Conv2d{1, 1, {}}, "conv", Stage::backbone, {in, cw, cb}, "conv@linear");
  const ValueId relu = g.add1(Relu{}, "relu", Stage::backbone, {conv}, "conv");
  const ValueId fw = g.weight("fc.weight", Shape{5, 108}), fb = g.weight("fc.bias", Shape{5});
  const ValueId fc = g.add1(Linear{}, "fc", Stage::head, {relu, fw, fb}, "fc@linear");
  const ValueId fr = g.add1(Relu{}, "fc relu", Stage::head, {fc}, "fc@relu");
  const ValueId fs = g.add1(Scale{0.5f}, "fc drop", Stage::head, {fr}, "fc");
  g.add1(Lrn{}, "unused", Stage::backbone, {relu}, "unused");
  g.keep(fs);
  return g;
}

std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("elementwise nodes move into their producer", "[lower]") {
  const Graph g = lower(trunk(), {.relu = true, .scale = true}, {});
  REQUIRE(g.nodes().size() == 2);
  CHECK(std::get<Conv2d>(g.nodes()[0].op).epilogue == Epilogue{true, 1.0f, false});
  CHECK(std::get<Linear>(g.nodes()[1].op).epilogue == Epilogue{true, 0.5f, false});
  CHECK(g.find("conv@linear") < 0);
  CHECK(g.find("unused") < 0);
  CHECK(g.value(g.nodes()[0].out[0]).name == "conv");
  CHECK(g.value(g.find("fc")).kept);
}

TEST_CASE("fusion stops at kept values and at what a device cannot do", "[lower]") {
  const std::vector<std::string> keep{"conv@linear", "unused"};
  const Graph kept = lower(trunk(), {.relu = true, .scale = true}, keep);
  CHECK(kept.nodes().size() == 4);
  REQUIRE(kept.find("conv@linear") >= 0);
  CHECK(kept.value(kept.find("conv@linear")).kept);
  CHECK(kept.find("unused") >= 0);
  CHECK(lower(trunk(), {}, {}).nodes().size() == 5);
  const Graph relu_only = lower(trunk(), {.relu = true, .scale = false}, {});
  CHECK(relu_only.nodes().size() == 3);
  const std::vector<std::string> unknown{"conv9"};
  CHECK(message_of([&] { lower(trunk(), {}, unknown); }).find("conv9") != std::string::npos);
}

TEST_CASE("a value with two readers is not fused away", "[lower]") {
  Graph g;
  const ValueId in = g.input("in", {Shape{2, 8}});
  const ValueId w = g.weight("w", Shape{4, 8}), b = g.weight("b", Shape{4});
  const ValueId fc = g.add1(Linear{}, "fc", Stage::head, {in, w, b}, "fc");
  g.keep(g.add1(Relu{}, "relu", Stage::head, {fc}, "relu"));
  g.keep(g.add1(Softmax{1}, "prob", Stage::head, {fc}, "prob"));
  CHECK(lower(g, {true, true}, {}).nodes().size() == 3);
}

TEST_CASE("relu after scale is another function than scale after relu", "[lower]") {
  Graph g;
  const ValueId in = g.input("in", {Shape{2, 8}});
  const ValueId w = g.weight("w", Shape{4, 8}), b = g.weight("b", Shape{4});
  const ValueId fc = g.add1(Linear{}, "fc", Stage::head, {in, w, b}, "fc");
  const ValueId scaled = g.add1(Scale{-2.0f}, "scale", Stage::head, {fc}, "scaled");
  g.keep(g.add1(Relu{}, "relu", Stage::head, {scaled}, "relu"));
  const Graph lowered = lower(g, {true, true}, {});
  CHECK(lowered.nodes().size() == 2);
  CHECK(std::get<Linear>(lowered.nodes()[0].op).epilogue == Epilogue{false, -2.0f, false});
}

TEST_CASE("16-bit storage stops where scores begin", "[lower]") {
  Graph g;
  const ValueId in = g.input("in", {Shape{1, 6, 6, 2}});
  const ValueId w1 = g.weight("a.weight", Shape{3, 2, 1, 1}), b1 = g.weight("a.bias", Shape{3});
  const ValueId map = g.add1(Conv2d{}, "a", Stage::backbone, {in, w1, b1}, "map");
  const ValueId w2 = g.weight("s.weight", Shape{4, 3, 1, 1}), b2 = g.weight("s.bias", Shape{4});
  const ValueId score = g.add1(Conv2d{}, "s", Stage::rpn, {map, w2, b2}, "score");
  const ValueId scaled = g.add1(Scale{0.5f}, "scale", Stage::rpn, {score}, "scaled");
  g.keep(g.add1(Softmax{2}, "prob", Stage::rpn, {scaled}, "prob"));
  const Graph narrow = lower(g, {}, {}, DType::f16);
  const auto dtype = [&](const char* name) { return narrow.value(narrow.find(name)).spec.dtype; };
  CHECK(dtype("in") == DType::f32);
  CHECK(dtype("map") == DType::f16);
  CHECK(dtype("score") == DType::f32);
  CHECK(dtype("scaled") == DType::f32);
  CHECK(dtype("prob") == DType::f32);
  CHECK(dtype("a.weight") == DType::f32);
}

TEST_CASE("layers that cannot convert keep the type of what they read", "[lower]") {
  Graph g;
  const ValueId in = g.input("in", {Shape{1, 6, 6, 2}});
  const ValueId norm = g.add1(Lrn{}, "norm", Stage::backbone, {in}, "norm");
  const ValueId w1 = g.weight("a.weight", Shape{4, 2, 1, 1}), b1 = g.weight("a.bias", Shape{4});
  const ValueId map = g.add1(Conv2d{}, "a", Stage::backbone, {norm, w1, b1}, "map");
  const ValueId pooled = g.add1(MaxPool{}, "pool", Stage::rpn, {map}, "pooled");
  g.keep(g.add1(Softmax{2}, "prob", Stage::rpn, {pooled}, "prob"));
  const Graph narrow = lower(g, {}, {}, DType::bf16);
  // In front of the first product all is as the input; a score is as wide as what it was pooled from.
  for (const char* name : {"norm", "map", "pooled"}) {
    INFO(name);
    CHECK(narrow.value(narrow.find(name)).spec.dtype == DType::f32);
  }
}
