// Decoding, clipping and overlaps of box_math.h against bbox_transform.py and bbox.pyx.
#include "box_math.h"
#include "golden/box_ops.h"

using namespace frcnn;

namespace {

std::vector<Box> boxes_of(const std::vector<float>& v) {
  std::vector<Box> boxes;
  for (std::size_t i = 0; i + 3 < v.size(); i += 4) boxes.push_back({v[i], v[i + 1], v[i + 2], v[i + 3]});
  return boxes;
}

void append(std::vector<float>& to, const Box& b) { to.insert(to.end(), {b.x1, b.y1, b.x2, b.y2}); }

}  // namespace

TEST_CASE("golden: decoding and clipping") {
  const auto file = golden::open("bbox.safetensors");
  if (!file) return;
  golden::Tally tally("bbox inv and clip");
  const auto boxes = boxes_of(golden::values(*file, "boxes"));
  const auto image = golden::values(*file, "im_shape");
  for (const auto& name : golden::matching(*file, R"(deltas(\d+))")) {
    const auto deltas = boxes_of(golden::values(*file, name[0]));
    REQUIRE(deltas.size() % boxes.size() == 0);
    const std::size_t classes = deltas.size() / boxes.size();
    std::vector<float> decoded, clipped;
    for (std::size_t i = 0; i < deltas.size(); ++i) {
      const Box box = decode(boxes[i / classes], deltas[i].x1, deltas[i].y1, deltas[i].x2, deltas[i].y2);
      append(decoded, box);
      append(clipped, clip(box, image[0], image[1]));
    }
    tally.compare("inv" + name[1], decoded, golden::values(*file, "inv" + name[1]), 1e-5, 1e-5);
    tally.compare("clip" + name[1], clipped, golden::values(*file, "clip" + name[1]), 1e-5, 1e-5);
    if (file->find("inv" + name[1] + "_f64")) {
      tally.compare("inv" + name[1] + "_f64", decoded,
                    golden::values<double>(*file, "inv" + name[1] + "_f64"), 1e-5, 1e-5);
    }
  }
  tally.finish();
}

TEST_CASE("golden: overlaps") {
  const auto file = golden::open("bbox.safetensors");
  if (!file) return;
  golden::Tally tally("bbox overlaps");
  std::vector<float> got;
  const auto boxes = boxes_of(golden::values(*file, "boxes")),
             queries = boxes_of(golden::values(*file, "query"));
  for (const Box& box : boxes) {
    for (const Box& query : queries) got.push_back(iou(box, query));
  }
  // A degenerate pair can have no union to divide by; where the release defines 0 (no overlap), 0/0 is not a
  // result.
  for (float& v : got) v = std::isnan(v) ? 0.0f : v;
  tally.compare("overlaps", got, golden::values<double>(*file, "overlaps"), 1e-6);
  tally.compare("overlaps_f32", got, golden::values<double>(*file, "overlaps_f32"), 1e-6);
  tally.finish();
}
