#include <cstring>
#include <map>
#include <random>

#include "catch.h"
#include "frcnn/error.h"
#include "graph/random_graph.h"
#include "runtime/session.h"

using namespace frcnn;

namespace {

// Random weights for every weight of a graph.
class RandomWeights {
 public:
  RandomWeights(const Graph& graph, unsigned seed) {
    std::mt19937 rng(seed);
    std::map<std::string, Weight> tensors;
    for (const Value& value : graph.values()) {
      if (value.role != Role::weight) continue;
      auto data = std::make_shared<std::vector<float>>(static_cast<std::size_t>(value.spec.shape.elements()));
      for (float& x : *data) x = static_cast<float>(static_cast<int>(rng() % 2001) - 1000) / 2000.0f;
      tensors[value.name] = {{data->data(), value.spec.shape, DType::f32}, data, {}};
    }
    weights = std::make_shared<const Weights>(std::move(tensors), "random");
  }
  std::shared_ptr<const Weights> weights;
};

std::vector<float> random_input(const Graph& graph, unsigned seed) {
  std::mt19937 rng(seed);
  std::vector<float> data(static_cast<std::size_t>(graph.value(graph.find("in")).spec.shape.elements()));
  for (float& x : data) x = static_cast<float>(static_cast<int>(rng() % 2001) - 1000) / 100.0f;
  return data;
}

// The kept values of a run, one after the other.
std::vector<float> outputs(Executable& executable, const std::vector<float>& input) {
  executable.set("in", input.data(), input.size() * sizeof(float));
  executable.run();
  std::vector<float> all;
  for (const Value& value : executable.graph().values()) {
    if (!value.kept) continue;
    std::vector<float> data(static_cast<std::size_t>(value.spec.shape.elements()));
    executable.get(value.name, data.data(), value.spec.bytes());
    all.insert(all.end(), data.begin(), data.end());
  }
  return all;
}

}  // namespace

TEST_CASE("the arena and guarded memory give the same bits, and so does a second run", "[executable]") {
  for (const Precision precision : {Precision::fp32, Precision::bf16}) {
    if (precision == Precision::bf16 && !cpu::multiplies_bf16()) {
      WARN("SKIPPED: this processor multiplies no bf16");
      continue;
    }
    const auto device = make_cpu_device(1, precision);
    std::size_t compared = 0, narrow = 0;
    for (unsigned seed = 0; seed < 60; ++seed) {
      INFO(name_of(precision) << ", seed " << seed);
      const Graph graph = test::random_graph(seed, 3 + static_cast<int>(seed % 15));
      const RandomWeights random(graph, seed);
      Executable arena(graph, {}, *random.weights, *device);
      Executable guarded(graph, {}, *random.weights, *device, {ProgramMemory::guarded});
      const std::vector<float> input = random_input(graph, seed);
      const std::vector<float> first = outputs(arena, input), second = outputs(arena, input),
                               third = outputs(guarded, input);
      REQUIRE(!first.empty());
      CHECK(std::memcmp(first.data(), second.data(), first.size() * sizeof(float)) == 0);
      REQUIRE(third.size() == first.size());
      CHECK(std::memcmp(first.data(), third.data(), first.size() * sizeof(float)) == 0);
      compared += first.size();
      for (const Value& value : arena.graph().values()) narrow += value.spec.dtype == DType::bf16;
    }
    CHECK(compared > 10000);
    CHECK((narrow > 0) == (precision == Precision::bf16));
  }
}

TEST_CASE("fused and unfused programs agree", "[executable]") {
  const auto device = make_cpu_device(1);
  for (unsigned seed = 100; seed < 140; ++seed) {
    INFO("seed " << seed);
    const Graph graph = test::random_graph(seed, 12);
    const RandomWeights random(graph, seed);
    std::vector<std::string> everything;
    for (const Value& value : graph.values())
      if (value.role != Role::weight) everything.push_back(value.name);
    Executable fused(graph, {}, *random.weights, *device);
    Executable parts(graph, everything, *random.weights, *device);
    const std::vector<float> input = random_input(graph, seed);
    fused.set("in", input.data(), input.size() * sizeof(float));
    parts.set("in", input.data(), input.size() * sizeof(float));
    fused.run();
    parts.run();
    for (const Value& value : fused.graph().values()) {
      if (!value.kept) continue;
      std::vector<float> a(static_cast<std::size_t>(value.spec.shape.elements())), b(a.size());
      fused.get(value.name, a.data(), value.spec.bytes());
      parts.get(value.name, b.data(), value.spec.bytes());
      // A ReLU and a factor of one half are exact, so where they are applied cannot matter.
      CHECK(a == b);
    }
  }
}

TEST_CASE("guarded memory catches a kernel that writes outside its output", "[executable]") {
  // A device whose ReLU writes one element too many.
  class Broken final : public Device {
   public:
    std::string name() const override { return "broken"; }
    bool is_host() const override { return true; }
    Precision precision() const override { return Precision::fp32; }
    FusionSupport fusions() const override { return {}; }
    Prepared prepare(const Op&, const KernelSpec&) override {
      return {"broken", 0, {}, [](const KernelArgs& args) {
                args.out[0].as<float>()[args.out[0].shape.elements()] = 1.0f;
              }};
    }
    std::shared_ptr<void> allocate(std::size_t bytes) override { return cpu_->allocate(bytes); }
    void upload(void* d, const void* h, std::size_t n) override { cpu_->upload(d, h, n); }
    void download(void* h, const void* d, std::size_t n) override { cpu_->download(h, d, n); }
    std::shared_ptr<void> allocate_host(std::size_t bytes) override { return cpu_->allocate_host(bytes); }
    void queue_upload(void* d, const void* h, std::size_t n) override { cpu_->upload(d, h, n); }
    void queue_download(void* h, const void* d, std::size_t n) override { cpu_->download(h, d, n); }
    void fill(void* d, int byte, std::size_t n) override { cpu_->fill(d, byte, n); }
    void synchronize() override {}
    void* stream() override { return nullptr; }
    bool stages_can_be_timed() const override { return true; }

   private:
    std::shared_ptr<Device> cpu_ = make_cpu_device(1);
  } device;
  Graph graph;
  const ValueId in = graph.input("in", {Shape{1, 3, 3, 2}});
  graph.keep(graph.add1(Relu{}, "the_relu", Stage::backbone, {in}, "out"));
  const Weights none({}, "none");
  Executable guarded(graph, {}, none, device, {ProgramMemory::guarded});
  std::string message;
  try {
    guarded.run();
  } catch (const Error& e) {
    message = e.what();
  }
  CHECK(message.find("the_relu") != std::string::npos);
}

TEST_CASE("sessions keep a bounded number of plans, the least recently used go", "[session]") {
  const auto device = make_cpu_device(1);
  Graph graph;
  const ValueId in = graph.input("in", {Shape{1, 3, 3, 2}});
  graph.keep(graph.add1(Relu{}, "relu", Stage::backbone, {in}, "out"));
  Session session(std::make_shared<const Weights>(std::map<std::string, Weight>{}, "none"), device,
                  {4096, 2});
  int built = 0;
  const auto use = [&](std::int64_t key) {
    session.executable({key}, [&] {
      ++built;
      return graph;
    });
  };
  use(1), use(2), use(1), use(3);  // drops 2
  CHECK(built == 3);
  CHECK(session.stats().plans == 2);
  use(1);
  CHECK(built == 3);
  use(2);
  CHECK(built == 4);
}

TEST_CASE("a plan beyond the arena is refused and the session goes on", "[session]") {
  const auto device = make_cpu_device(1);
  const auto make = [](std::int64_t side) {
    Graph graph;
    const ValueId in = graph.input("in", {Shape{1, side, side, 1}});
    graph.keep(graph.add1(Relu{}, "relu", Stage::backbone, {in}, "out"));
    return graph;
  };
  Session session(std::make_shared<const Weights>(std::map<std::string, Weight>{}, "none"), device,
                  {4096, 4});
  session.executable({1}, [&] { return make(8); });
  CHECK_THROWS_AS(session.executable({2}, [&] { return make(100); }), Error);
  CHECK(session.stats().plans == 1);
  Executable& small = session.executable({1}, [&] { return make(8); });
  std::vector<float> data(64, -1.0f);
  data[5] = 2.0f;
  small.set("in", data.data(), 256);
  small.run();
  small.get("out", data.data(), 256);
  CHECK(data[5] == 2.0f);
  CHECK(data[4] == 0.0f);
  CHECK_THROWS_AS(small.set("in", data.data(), 255), Error);
  CHECK_THROWS_AS(small.view("nothing"), Error);
}

TEST_CASE("packed weights are shared between executables and a mis-shaped one is named", "[weights]") {
  const auto device = make_cpu_device(1);
  const Graph graph = test::random_graph(7, 20);
  const RandomWeights random(graph, 7);
  Executable one(graph, {}, *random.weights, *device);
  const std::size_t bytes = random.weights->packed_bytes();
  Executable two(graph, {}, *random.weights, *device);
  CHECK(bytes > 0);
  CHECK(random.weights->packed_bytes() == bytes);

  Graph wrong;
  const ValueId in = wrong.input("in", {Shape{1, 4, 4, 2}});
  const ValueId w = wrong.weight("conv.weight", Shape{3, 2, 3, 3}), b = wrong.weight("conv.bias", Shape{3});
  wrong.keep(wrong.add1(Conv2d{1, 1, {}}, "conv", Stage::backbone, {in, w, b}, "conv"));
  std::vector<float> data(100);
  std::map<std::string, Weight> tensors;
  tensors["conv.weight"] = {{data.data(), Shape{3, 2, 1, 1}, DType::f32}, nullptr, {}};
  tensors["conv.bias"] = {{data.data(), Shape{3}, DType::f32}, nullptr, {}};
  const Weights bad(std::move(tensors), "bad.safetensors");
  std::string message;
  try {
    Executable e(wrong, {}, bad, *device);
  } catch (const Error& e) {
    message = e.what();
  }
  CHECK(message == "conv.weight: expected 3x2x3x3, bad.safetensors has 3x2x1x1");
}
