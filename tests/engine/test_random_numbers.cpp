// Counter-based random numbers: their distribution, and that they are the same everywhere.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "catch.h"
#include "training/random_numbers.h"

using namespace frcnn;

TEST_CASE("philox: the published test vectors") {
  const auto words = [](PhiloxCounter c) { return std::vector<std::uint32_t>(c.word, c.word + 4); };
  CHECK(words(philox({{0, 0, 0, 0}}, 0)) ==
        std::vector<std::uint32_t>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(words(philox({{~0u, ~0u, ~0u, ~0u}}, ~std::uint64_t{0})) ==
        std::vector<std::uint32_t>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
}

TEST_CASE("box_muller: agrees with the mathematical library to rounding") {
  double worst = 0;
  for (int i = 0; i < 200000; ++i) {
    const double u = i / 200000.0, v = std::fmod(i * 0.6180339887498949, 1.0);
    const auto [a, b] = box_muller(u, v);
    const double radius = std::sqrt(-2 * std::log(1 - u)), angle = 2 * 3.141592653589793 * v;
    worst = std::max({worst, std::abs(a - radius * std::cos(angle)), std::abs(b - radius * std::sin(angle))});
  }
  CHECK(worst < 2e-14);  // 5 radii of 8e-16, and the library's own
  CHECK(std::isfinite(box_muller(1 - 0x1p-53, 0.1)[0]));
}

TEST_CASE("fill_gaussian: moments, independence of length, and bits that no machine may change") {
  std::vector<float> values(100001), shorter(777);
  fill_gaussian(values, 2.0, 3, 5);
  fill_gaussian(shorter, 2.0, 3, 5);
  CHECK(std::equal(shorter.begin(), shorter.end(), values.begin()));
  double mean = 0, square = 0, fourth = 0;
  for (const float x : values) {
    mean += x;
    square += double{x} * x;
    fourth += double{x} * x * x * x;
  }
  const auto n = static_cast<double>(values.size());
  CHECK(std::abs(mean / n) < 4 * 2 / std::sqrt(n));
  CHECK(square / n == Approx(4).epsilon(0.02));
  CHECK(fourth / n / (square / n * square / n) == Approx(3).epsilon(0.05));
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const float x : values) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, 4);
    hash = (hash ^ bits) * 0x100000001b3u;
  }
  CHECK(hash == 0xf722e6e4ce4c57d8u);
  std::vector<float> other(777);
  fill_gaussian(other, 2.0, 4, 5);
  CHECK_FALSE(std::equal(shorter.begin(), shorter.end(), other.begin()));
  fill_gaussian(other, 2.0, 3, 6);
  CHECK_FALSE(std::equal(shorter.begin(), shorter.end(), other.begin()));
}

TEST_CASE("shuffled: permutations that differ, each place equally likely") {
  std::vector<int> count(5 * 5);
  for (std::uint64_t i = 0; i < 5000; ++i) {
    auto order = shuffled(5, 3, i);
    for (std::size_t k = 0; k < 5; ++k) ++count[k * 5 + order[k]];
    std::sort(order.begin(), order.end());
    REQUIRE(order == std::vector<std::uint32_t>{0, 1, 2, 3, 4});
  }
  for (const int c : count) CHECK(std::abs(c - 1000) < 150);  // 5 standard deviations
  CHECK(shuffled(100, 3, 0) == shuffled(100, 3, 0));
  CHECK(shuffled(100, 3, 0) != shuffled(100, 3, 1));
  CHECK(shuffled(100, 3, 0) != shuffled(100, 4, 0));
  CHECK(shuffled(0, 3, 0).empty());
}

TEST_CASE("draws: below() reaches every number and no other, chances are fair") {
  RandomDraws draws(3, RandomStream::augment, 9);
  std::vector<int> count(7);
  int heads = 0;
  for (int i = 0; i < 7000; ++i) {
    const std::uint64_t x = draws.below(7);
    REQUIRE(x < 7);
    ++count[x];
    heads += draws.chance();
    const double y = draws.between(-2, 3);
    REQUIRE((y >= -2 && y < 3));
  }
  for (const int c : count) CHECK(std::abs(c - 1000) < 150);
  CHECK(std::abs(heads - 3500) < 210);
}
