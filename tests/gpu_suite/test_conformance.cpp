// The hardware against what the emulator gave for the same launches.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <vector>

#include "catch.h"
#include "tests/gpu_suite/suite.h"
#include "tests/simt/buffer.h"
#include "tests/simt/conformance.h"

using namespace frcnn::simt_test;

namespace {

template <class T>
Sample sample_of(Sample::Type type, std::vector<T> values) {
  Sample sample{"made up", type, {}, 0, {}};
  sample.result.resize(values.size() * sizeof(T));
  std::memcpy(sample.result.data(), values.data(), sample.result.size());
  return sample;
}

}  // namespace

TEST_CASE("every emulated instruction gives the emulator's results", "[conformance]") {
  std::map<std::string, Sample> expected;
  for (Sample& sample : read_samples(reference_path("conformance.safetensors"))) {
    const std::string name = sample.name;
    expected.emplace(name, std::move(sample));
  }
  std::size_t elements = 0;
  const std::vector<Sample> samples = take_samples();
  for (const Sample& got : samples) {
    INFO(got.name);
    const auto found = expected.find(got.name);
    if (found == expected.end()) {
      FAIL_CHECK("the references know nothing of it: they are of another version");
      continue;
    }
    const Comparison comparison = compare(got, found->second);
    INFO(comparison.differing << " of " << comparison.elements << " elements differ; " << comparison.first);
    CHECK(comparison.differing == 0);
    elements += comparison.elements;
    if (!found->second.allowed.empty())
      WARN(got.name << ": at most " << comparison.worst << " of the allowed difference");
    else if (found->second.ulps > 0)
      WARN(got.name << ": at most " << comparison.worst << " ulp apart, " << found->second.ulps
                    << " allowed");
    expected.erase(found);
  }
  for (const auto& [name, sample] : expected) FAIL_CHECK(name << ": recorded, but not tried");
  CHECK(elements > 100000);
}

TEST_CASE("samples are compared as strictly as they say", "[conformance]") {
  using Type = Sample::Type;
  const float next = std::nextafter(1.0f, 2.0f), nan = std::numeric_limits<float>::quiet_NaN(),
              infinity = std::numeric_limits<float>::infinity();
  const Sample got = sample_of<float>(Type::f32, {1, nan, -0.0f, -infinity});
  const auto differing = [&](std::vector<float> values, int ulps = 0, std::vector<float> allowed = {}) {
    Sample expected = sample_of(Type::f32, std::move(values));
    expected.ulps = ulps;
    expected.allowed = std::move(allowed);
    return compare(got, expected).differing;
  };
  CHECK(differing({1, -nan, -0.0f, -infinity}) == 0);
  CHECK(differing({next, nan, -0.0f, -infinity}) == 1);
  CHECK(differing({1, nan, 0.0f, -infinity}) == 1);
  CHECK(differing({1, 0, -0.0f, infinity}) == 2);
  CHECK(differing({next, nan, 0.0f, -infinity}, 1) == 0);
  CHECK(differing({std::nextafter(next, 2.0f), nan, -0.0f, -infinity}, 1) == 1);
  CHECK(differing({1, nan, std::numeric_limits<float>::denorm_min(), infinity}, 1) == 1);
  CHECK(differing({1.5f, nan, 0.25f, -infinity}, 0, {0.5f, 0, 0.2f, 0}) == 1);
  CHECK(differing({1, nan, -0.0f}) == 1);
  CHECK(compare(sample_of<std::uint16_t>(Type::u16, {7, 9}), sample_of<std::uint16_t>(Type::u16, {7, 8}))
            .differing == 1);
}

#if defined(FRCNN_SIMT)
TEST_CASE("what is recorded does not depend on the order of threads", "[conformance]") {
  const std::vector<Sample> first = take_samples();
  in_every_order([&] {
    const std::vector<Sample> again = take_samples();
    REQUIRE(again.size() == first.size());
    for (std::size_t i = 0; i < first.size(); ++i) {
      INFO(first[i].name);
      CHECK((again[i].result == first[i].result));
    }
  });
}
#endif
