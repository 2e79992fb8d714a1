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
      for (const std::int64_t steps : {1, 16, 32, 64, 784, 4096}) {
        for (const int most : {GemmProblem{}.most_splits, gemm_splits.back()}) {
          GemmProblem problem = hopper(rows, columns, steps);
          problem.most_splits = most;
          const GemmChoice choice = choose_gemm(problem);
          tiles.insert(choice.tile);
          splits.insert(choice.splits);
        }
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

// Few weights and many pixels: only splits along the pixels give every multiprocessor something to do.
TEST_CASE("choose_gemm splits weight gradients of the first layers further") {
  struct Gradient {
    const char* name;
    std::int64_t outputs, columns, pixels;
  };
  for (const Gradient& g :
       {Gradient{"vgg conv1_2", 64, 576, 600 * 1000}, Gradient{"vgg conv3_1", 256, 1152, 150 * 250},
        Gradient{"zf conv1", 96, 147, 300 * 500}, Gradient{"vgg rpn_cls_score", 18, 512, 38 * 63}}) {
    const std::int64_t steps = ceil_div(g.pixels, 16);
    GemmProblem problem = hopper(g.outputs, g.columns, steps);
    problem.most_splits = 64;
    const GemmChoice choice = choose_gemm(problem);
    const GemmTile tile = gemm_tiles[static_cast<std::size_t>(choice.tile)];
    const std::int64_t blocks =
        ceil_div(g.outputs, tile.rows) * ceil_div(g.columns, tile.columns) * choice.splits;
    INFO(g.name << ": tile " << tile.rows << "x" << tile.columns << ", splits " << choice.splits << ", "
                << blocks << " blocks");
    CHECK(choice.splits <= 64);
    CHECK(blocks >= 132 / 2);
  }
  GemmProblem problem = hopper(64, 576, 37500);
  CHECK(choose_gemm(problem).splits <= 16);
  problem.most_splits = 64;
  CHECK(choose_gemm(problem).splits > 16);
}

namespace {

FirstConvProblem first_layer(std::int64_t outputs, std::int64_t kernel, std::int64_t stride, int element) {
  FirstConvProblem p;
  p.width = 1000;
  p.channels = 3;
  p.kernel_h = p.kernel_w = kernel;
  p.stride = stride;
  p.out_height = 600 / stride;
  p.out_width = 1000 / stride;
  p.outputs = outputs;
  p.element = element;
  p.multiprocessors = 132;
  p.shared_per_block = 227 << 10;
  p.shared_per_multiprocessor = 228 << 10;
  return p;
}

int columns_of(const FirstConvProblem& p) {
  const auto choice = choose_first_conv(p);
  return choice ? first_conv_columns[static_cast<std::size_t>(choice->columns)] : 0;
}

}  // namespace

TEST_CASE("choose_first_conv pads little, and fills the GPU without leaving blocks idle") {
  for (const int element : {2, 4}) {
    CHECK(columns_of(first_layer(64, 3, 1, element)) == 64);  // VGG-16
    CHECK(columns_of(first_layer(96, 7, 2, element)) == 96);  // ZF
    CHECK(columns_of(first_layer(8, 3, 1, element)) == 32);
    CHECK(columns_of(first_layer(128, 3, 1, element)) == 64);
    CHECK(columns_of(first_layer(192, 3, 1, element)) == 96);
    const auto vgg = choose_first_conv(first_layer(64, 3, 1, element));
    REQUIRE(vgg);
    CHECK(vgg->blocks == 2 * 132);
  }
  FirstConvProblem tiny = first_layer(64, 3, 1, 4);
  tiny.out_height = 9;
  tiny.out_width = 17;
  CHECK(choose_first_conv(tiny)->blocks == 4);
  tiny.out_height = tiny.out_width = 1;
  CHECK(choose_first_conv(tiny)->blocks == 1);
}

TEST_CASE("choose_first_conv leaves to the implicit GEMM what does not fit") {
  FirstConvProblem p = first_layer(96, 7, 2, 4);
  const std::size_t bytes = first_conv_shared_bytes(p, 96);
  CHECK(bytes < (120u << 10));
  p.shared_per_block = bytes;
  CHECK(columns_of(p) == 96);
  p.shared_per_block = bytes - 1;
  CHECK(columns_of(p) == 32);
  p.shared_per_block = 20 << 10;
  CHECK(columns_of(p) == 0);
  for (const std::int64_t huge : {std::int64_t{2000}, std::int64_t{1} << 20, std::int64_t{1} << 40}) {
    CHECK(columns_of(first_layer(64, huge, 1, 2)) == 0);
    CHECK(columns_of(first_layer(64, 3, huge, 2)) == 0);
  }
  p = first_layer(64, 3, 1, 2);
  for (const std::int64_t channels : {0, 5, 64}) {
    p.channels = channels;
    CHECK(columns_of(p) == 0);
  }
}

TEST_CASE("the rows of a first layer's patch begin as in the source and do not share 16 bytes") {
  for (const int element : {2, 4}) {
    const std::int64_t each = 16 / element;
    for (std::int64_t width = 1; width < 70; ++width) {
      for (std::int64_t channels = 1; channels <= first_conv_most_channels; ++channels) {
        FirstConvProblem p = first_layer(64, 1 + width % 11, 1 + width % 4, element);
        p.width = width;
        p.channels = channels;
        const FirstConvLayout at = first_conv_layout(p);
        CAPTURE(element, width, channels, at.pitch, at.span, at.copies, at.patch);
        CHECK(at.pitch % each == width * channels % each);
        CHECK(at.patch % each == 0);
        CHECK(at.weight_pitch / each % 2 == 1);
        for (std::int64_t lead = 0; lead < each; ++lead) {
          for (std::int64_t row = 0; row < at.patch_rows; ++row) {
            const std::int64_t begin = lead + row * at.pitch, end = begin + at.span;
            CHECK(ceil_div(end, each) - begin / each <= at.copies);
            CHECK(ceil_div(end, each) <= (begin + at.pitch) / each);
            CHECK(ceil_div(end, each) * each <= at.patch);
          }
        }
      }
    }
  }
}
