#include "training/random_numbers.h"

#include <cmath>
#include <numeric>
#include <utility>

namespace frcnn {
namespace {

std::uint32_t high_word(std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); }
std::uint32_t low_word(std::uint64_t x) { return static_cast<std::uint32_t>(x); }

// ln x for x > 0: the exponent by frexp, which is exact, and 2 artanh((m - 1) / (m + 1)) of a mantissa in
// [0.7, 1.42).
double plain_log(double x) {
  int exponent = 0;
  double m = std::frexp(x, &exponent);
  if (m < 0.70710678118654752) {
    m *= 2;
    --exponent;
  }
  const double t = (m - 1) / (m + 1), square = t * t;
  double sum = 0;
  for (int n = 23; n >= 1; n -= 2) sum = sum * square + 1.0 / n;  // |t| < 0.172: 12 terms reach 1e-18
  return exponent * 0.69314718055994531 + 2 * t * sum;
}

// sin and cos of 2 pi v for v in [0, 1): by quarter turns to an angle of at most pi / 4 and there by Taylor's
// series.
std::array<double, 2> plain_sin_cos(double v) {
  const int quarter = static_cast<int>(v * 4 + 0.5);
  const double angle = (v - quarter * 0.25) * 6.28318530717958648, square = angle * angle;
  double sine = 0, cosine = 0;
  for (int n = 19; n >= 3; n -= 2) sine = (sine + 1) * (-square / (n * (n - 1)));
  for (int n = 18; n >= 2; n -= 2) cosine = (cosine + 1) * (-square / (n * (n - 1)));
  sine = angle * (1 + sine);
  cosine = 1 + cosine;
  switch (quarter % 4) {
    case 1:
      return {cosine, -sine};
    case 2:
      return {-sine, -cosine};
    case 3:
      return {-cosine, sine};
    default:
      return {sine, cosine};
  }
}

}  // namespace

std::uint64_t RandomDraws::word64() {
  const PhiloxCounter word =
      philox({{low_word(index_), high_word(index_), drawn_++, static_cast<std::uint32_t>(stream_)}}, seed_);
  return std::uint64_t{word.word[0]} << 32 | word.word[1];
}

double RandomDraws::unit() {
  const std::uint64_t word = word64();
  return unit_interval(high_word(word), low_word(word));
}

std::uint64_t RandomDraws::below(std::uint64_t bound) {
  const std::uint64_t excess =
      (0 - bound) % bound;  // 2^64 mod bound: so many words would make some numbers likelier
  for (;;)
    if (const std::uint64_t word = word64(); word >= excess) return word % bound;
}

std::vector<std::uint32_t> shuffled(std::size_t count, std::uint64_t seed, std::uint64_t index) {
  std::vector<std::uint32_t> order(count);
  std::iota(order.begin(), order.end(), 0u);
  RandomDraws draws(seed, RandomStream::shuffle, index);
  for (std::size_t i = count; i > 1; --i) std::swap(order[i - 1], order[draws.below(i)]);
  return order;
}

std::array<double, 2> box_muller(double u, double v) {
  const double radius = std::sqrt(-2 * plain_log(1 - u));  // 1 - u is in (0, 1]
  const auto [sine, cosine] = plain_sin_cos(v);
  return {radius * cosine, radius * sine};
}

void fill_gaussian(std::span<float> values, double std, std::uint64_t seed, std::uint32_t index) {
  constexpr auto stream = static_cast<std::uint32_t>(RandomStream::initial_weights);
  for (std::size_t pair = 0; 2 * pair < values.size(); ++pair) {
    const auto [w0, w1, w2, w3] = philox({{low_word(pair), high_word(pair), index, stream}}, seed).word;
    const auto normal = box_muller(unit_interval(w0, w1), unit_interval(w2, w3));
    values[2 * pair] = static_cast<float>(std * normal[0]);
    if (2 * pair + 1 < values.size()) values[2 * pair + 1] = static_cast<float>(std * normal[1]);
  }
}

}  // namespace frcnn
