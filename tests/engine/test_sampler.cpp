// Which images an update sees.
#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "catch.h"
#include "frcnn/error.h"
#include "training/sampler.h"

using namespace frcnn;

TEST_CASE("sampler: every image once in each pass, in an order that changes") {
  const Sampler sampler(std::vector<bool>(7, true), 1, true, 3);
  std::set<std::vector<std::size_t>> orders;
  for (std::int64_t pass = 0; pass < 4; ++pass) {
    std::vector<std::size_t> order;
    for (std::int64_t i = 0; i < 7; ++i) {
      const auto batch = sampler.batch(pass * 7 + i);
      REQUIRE(batch.size() == 1);
      order.push_back(batch[0]);
    }
    CHECK(std::set<std::size_t>(order.begin(), order.end()).size() == 7);
    orders.insert(order);
  }
  CHECK(orders.size() == 4);
  CHECK(sampler.epoch(14) == 2);
}

TEST_CASE("sampler: batches are all wide or all tall, whatever the counts") {
  for (const auto& [wide, tall] : {std::pair{5, 4}, {1, 6}, {0, 3}, {3, 0}, {1, 0}, {7, 7}}) {
    for (const std::int64_t size : {2, 3}) {
      INFO(wide << " wide, " << tall << " tall, batches of " << size);
      std::vector<bool> shape(static_cast<std::size_t>(wide + tall), false);
      for (int i = 0; i < wide; ++i)
        shape[static_cast<std::size_t>(i * (wide + tall) / std::max(wide, 1))] = true;
      const Sampler sampler(shape, size, true, 5);
      const auto up = [&](std::int64_t n) { return (n + size - 1) / size; };
      const std::int64_t batches = up(std::count(shape.begin(), shape.end(), true)) +
                                   up(std::count(shape.begin(), shape.end(), false));
      for (int pass = 0; pass < 3; ++pass) {
        std::map<std::size_t, int> seen;
        for (std::int64_t b = 0; b < batches; ++b) {
          const auto images = sampler.batch(pass * batches + b);
          REQUIRE(static_cast<std::int64_t>(images.size()) == size);
          for (const std::size_t i : images) {
            CHECK(shape[i] == shape[images[0]]);
            ++seen[i];
          }
        }
        CHECK(seen.size() == shape.size());
      }
    }
  }
}

TEST_CASE("sampler: without grouping passes follow each other without a gap") {
  const Sampler sampler({true, false, true, false, true}, 2, false, 3);
  std::map<std::size_t, int> seen;
  for (std::int64_t b = 0; b < 5; ++b)
    for (const std::size_t i : sampler.batch(b)) ++seen[i];
  for (const auto& [image, count] : seen) CHECK(count == 2);
  CHECK(seen.size() == 5);
}

TEST_CASE("sampler: a batch depends on its number and the seed alone") {
  const std::vector<bool> wide{true, false, true, true, false, false, true};
  const Sampler a(wide, 2, true, 3), b(wide, 2, true, 3), c(wide, 2, true, 4);
  std::vector<std::vector<std::size_t>> ascending;
  for (std::int64_t i = 0; i < 100; ++i) ascending.push_back(b.batch(i));
  bool differs = false;
  for (std::int64_t i = 99; i >= 0; --i) {
    CHECK(a.batch(i) == ascending[static_cast<std::size_t>(i)]);
    differs = differs || a.batch(i) != c.batch(i);
  }
  CHECK(differs);
  CHECK_THROWS_AS(Sampler({}, 1, true, 3), Error);
}
