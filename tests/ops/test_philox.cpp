#include "catch.h"
#include "philox.h"

using namespace frcnn;

namespace {

void check(const PhiloxCounter& got, const PhiloxCounter& want) {
  for (int i = 0; i < 4; ++i) CHECK(got.word[i] == want.word[i]);
}

}  // namespace

// The known answers that come with Random123.
TEST_CASE("philox: known answers", "[philox]") {
  check(philox({{0, 0, 0, 0}}, 0), {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}});
  check(philox({{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}}, 0xffffffffffffffffu),
        {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}});
  check(philox({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0x299f31d0a4093822u),
        {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}});
}

TEST_CASE("philox: the sampling key of a candidate", "[philox]") {
  const RandomKey key{0xa4093822, 0x299f31d0, 0x243f6a88, 0x85a308d0};
  const PhiloxCounter words = philox({{key.step, key.image + 3, 17, 2}}, 0x299f31d0a4093822u);
  CHECK(key.of(3, 17, RandomStream::foreground_rois) == words.word[0]);
  CHECK(key.of(3, 17, RandomStream::background_rois) != words.word[0]);
}

TEST_CASE("philox: the limit below which an element falls", "[philox]") {
  CHECK(dropout_limit(0.0f) == 0);
  CHECK(dropout_limit(0.5f) == 0x80000000u);
  CHECK(dropout_limit(0.25f) == 0x40000000u);
}
