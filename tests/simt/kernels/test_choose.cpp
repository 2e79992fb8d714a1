#include "choose.h"

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "catch.h"

using namespace frcnn::cuda;

namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

struct Layer {
  const char* name;
  std::int64_t rows, outputs, channels, taps;
};

// At 600x1000: rows are pixels of the convolution's output; pooled ones count four per window.
const Layer layers[] = {
    {"vgg conv1_1", 600 * 1000, 64, 3, 9},
    {"vgg conv1_2", 600 * 1000, 64, 64, 9},
    {"vgg conv2_1", 300 * 500, 128, 64, 9},
    {"vgg conv2_2", 300 * 500, 128, 128, 9},
    {"vgg conv3_1", 150 * 250, 256, 128, 9},
    {"vgg conv3_3", 150 * 250, 256, 256, 9},
    {"vgg conv4_1", 75 * 125, 512, 256, 9},
    {"vgg conv4_3", 4 * 38 * 63, 512, 512, 9},
    {"vgg conv5_3", 38 * 63, 512, 512, 9},
    {"vgg rpn_conv/3x3", 38 * 63, 512, 512, 9},
    {"vgg rpn_cls_score", 38 * 63, 18, 512, 1},
    {"vgg rpn_bbox_pred", 38 * 63, 36, 512, 1},
    {"vgg fc6", 300, 4096, 25088, 1},
    {"vgg fc7", 300, 4096, 4096, 1},
    {"vgg cls_score", 300, 21, 4096, 1},
    {"vgg bbox_pred", 300, 84, 4096, 1},
    {"zf conv1", 300 * 500, 96, 3, 49},
    {"zf conv2", 75 * 125, 256, 96, 25},
    {"zf conv3", 39 * 64, 384, 256, 9},
    {"zf conv4", 39 * 64, 384, 384, 9},
    {"zf conv5", 39 * 64, 256, 384, 9},
    {"zf rpn_conv1", 39 * 64, 256, 256, 9},
    {"zf fc6", 300, 4096, 9216, 1},
    {"zf fc7", 300, 4096, 4096, 1},
};

// Multiprocessors and shared memory of an H100 (9.0), an A100 (8.0) and an RTX 3090 (8.6).
GemmProblem hopper(std::int64_t rows, std::int64_t columns, std::int64_t steps) {
  return {rows, columns, steps, 132, 227 << 10, 228 << 10};
}
GemmProblem a100(std::int64_t rows, std::int64_t columns, std::int64_t steps) {
  return {rows, columns, steps, 108, 163 << 10, 164 << 10};
}
GemmProblem rtx3090(std::int64_t rows, std::int64_t columns, std::int64_t steps) {
  return {rows, columns, steps, 82, 99 << 10, 100 << 10};
}

// As the kernel counts steps: 64 bytes of k each, and taps apart where channels fill 16 bytes.
std::int64_t steps_of(const Layer& layer, std::int64_t element) {
  const std::int64_t depth = 64 / element;
  if (layer.channels % (16 / element) == 0) return layer.taps * ceil_div(layer.channels, depth);
  return ceil_div(layer.taps * layer.channels, depth);
}

void check_possible(const GemmProblem& p, const GemmChoice& choice) {
  CAPTURE(p.rows, p.columns, p.steps, p.multiprocessors, choice.tile, choice.splits);
  REQUIRE(choice.tile >= 0);
  REQUIRE(choice.tile < static_cast<int>(gemm_tiles.size()));
  REQUIRE(choice.splits >= 1);
  CHECK(std::count(gemm_splits.begin(), gemm_splits.end(), choice.splits) == 1);
  // Every part of k has a step.
  if (choice.splits > 1) CHECK(ceil_div(p.steps, ceil_div(p.steps, choice.splits)) == choice.splits);
}

}  // namespace

// Sane: on 132 multiprocessors, two blocks on each, no layer leaves more than three quarters of the machine's
// time to padding, to blocks that are not there or to a last wave that is nearly empty. Layers with too
// little work for all multiprocessors are named and held to using what tiles and splits give them.
TEST_CASE("choose_gemm spreads VGG-16 and ZF at 600x1000 over 132 multiprocessors") {
  for (const Layer& layer : layers) {
    for (const std::int64_t element : {2, 4}) {
      const GemmProblem p = hopper(layer.rows, layer.outputs, steps_of(layer, element));
      const GemmChoice choice = choose_gemm(p);
      check_possible(p, choice);
      const GemmTile tile = gemm_tiles[static_cast<std::size_t>(choice.tile)];
      const std::int64_t blocks =
          ceil_div(p.rows, tile.rows) * ceil_div(p.columns, tile.columns) * choice.splits;
      const std::int64_t waves = ceil_div(blocks, 2 * p.multiprocessors);
      const double useful = static_cast<double>(p.rows * p.columns) * static_cast<double>(p.steps);
      const double taken = static_cast<double>(waves * 2 * p.multiprocessors) * tile.rows * tile.columns *
                           static_cast<double>(ceil_div(p.steps, choice.splits));
      INFO(layer.name << ", " << element << " bytes: tile " << tile.rows << "x" << tile.columns << ", splits "
                      << choice.splits << ", " << blocks << " blocks, " << useful / taken
                      << " of the machine");
      const bool narrow = p.columns < 64;  // the sibling heads: a tile's columns are mostly padding
      CHECK(useful / taken > (narrow ? 0.02 : 0.25));
      CHECK(blocks >= p.multiprocessors / 2);
    }
  }
}

TEST_CASE(
    "choose_gemm prefers large tiles where there is work for them, and splits only where there is not") {
  const GemmChoice large = choose_gemm(hopper(600 * 1000, 128, 36));
  CHECK(gemm_tiles[static_cast<std::size_t>(large.tile)] == GemmTile{128, 128});
  CHECK(large.splits == 1);
  CHECK(choose_gemm(hopper(300, 64, 784)).splits > 1);
}

// So no configuration is kept that only tests would see.
TEST_CASE("choose_gemm takes every tile and every number of splits for some problem") {
  std::set<int> tiles, splits;
  for (std::int64_t rows = 1; rows < 1 << 20; rows *= 2) {
    for (const std::int64_t columns : {64, 128, 4096}) {
      for (const std::int64_t steps : {1, 16, 32, 64, 784}) {
        const GemmChoice choice = choose_gemm(hopper(rows, columns, steps));
        tiles.insert(choice.tile);
        splits.insert(choice.splits);
      }
    }
  }
  CHECK(tiles.size() == gemm_tiles.size());
  CHECK(splits == std::set<int>(gemm_splits.begin(), gemm_splits.end()));
}

TEST_CASE("choose_gemm counts the blocks that a GPU's shared memory holds") {
  const auto resident = [](const GemmProblem& p) {
    std::vector<int> blocks;
    for (const GemmTile& tile : gemm_tiles) blocks.push_back(gemm_resident(p, tile));
    return blocks;
  };
  CHECK(resident(hopper(1, 1, 1)) == std::vector<int>{2, 2, 2});
  CHECK(resident(a100(1, 1, 1)) == std::vector<int>{1, 2, 2});
  CHECK(resident(rtx3090(1, 1, 1)) == std::vector<int>{1, 1, 2});
  GemmProblem small = hopper(600 * 1000, 128, 36);
  small.shared_per_block = 48 << 10;
  CHECK(resident(small) == std::vector<int>{0, 0, 2});
  CHECK(gemm_tiles[static_cast<std::size_t>(choose_gemm(small).tile)] == GemmTile{64, 64});
  for (const auto& on : {a100, rtx3090}) {
    for (const Layer& layer : layers) {
      for (const std::int64_t element : {2, 4}) {
        INFO(layer.name);
        const GemmProblem p = on(layer.rows, layer.outputs, steps_of(layer, element));
        const GemmChoice choice = choose_gemm(p);
        check_possible(p, choice);
        CHECK(gemm_resident(p, gemm_tiles[static_cast<std::size_t>(choice.tile)]) > 0);
      }
    }
  }
}

TEST_CASE("choose_gemm of the smallest and of odd problems") {
  const GemmChoice one = choose_gemm(hopper(1, 1, 1));
  CHECK(gemm_tiles[static_cast<std::size_t>(one.tile)] == GemmTile{64, 64});
  CHECK(one.splits == 1);
  for (const std::int64_t rows : {0, 1, 63, 65, 127, 129, 1 << 29}) {
    for (const std::int64_t columns : {1, 63, 65, 129, 4096}) {
      for (const std::int64_t steps : {1, 2, 7, 8, 15, 16, 17, 100, 784}) {
        for (const int multiprocessors : {1, 46, 132}) {
          const GemmProblem p{rows, columns, steps, multiprocessors};
          check_possible(p, choose_gemm(p));
        }
      }
    }
  }
}
