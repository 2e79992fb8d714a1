// `frcnn export` as a user runs it, and what OpenCV makes of its files.
#include <filesystem>
#include <sstream>
#include <string>

#include "catch.h"
#include "oracle.h"
#include "run_tool.h"
#include "tiny_model.h"

using namespace frcnn;

namespace {

const std::string shipped = std::string(FRCNN_SOURCE_DIR) + "/weights/bccd_zf.safetensors";

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("export writes two files and says what they cannot hold") {
  const tool::TempDir folder;
  tiny::save(folder / "m");
  for (const std::string form : {"py-faster-rcnn", "opencv"}) {
    const std::string out = folder / (form + ".caffemodel");
    const tool::Result result = tool::run({"export", folder / "m", out, "--form", form});
    INFO(result.err);
    REQUIRE(result.code == 0);
    CHECK(contains(result.out, "left out: short_side=64\n"));
    CHECK(contains(result.out, "left out: classes=cat,dog\n"));
    CHECK(contains(result.out, "wrote " + folder / (form + ".prototxt")));
    CHECK(contains(result.out, "wrote " + out + ": detector tiny"));
    const tool::Result back = tool::run({"convert", out, folder / "again", "--set", "classes=cat,dog"});
    INFO(back.err);
    CHECK(back.code == 0);
    const tool::Result diff = tool::run({"diff", folder / "m", folder / "again", "--rtol", "0"});
    INFO(diff.out << diff.err);
    CHECK(diff.code == 0);
  }
  const tool::Result wrong = tool::run({"export", folder / "m", folder / "x.caffemodel", "--form", "onnx"});
  CHECK(wrong.code == 2);
  CHECK(contains(wrong.err, "py-faster-rcnn"));
}

TEST_CASE("export: OpenCV runs the shipped detector's files", "[.long][long]") {
  const tool::TempDir folder;
  const std::string out = folder / "bccd.caffemodel", dump = folder / "dump";
  REQUIRE(tool::run({"export", shipped, out, "--form", "opencv"}).code == 0);
  const std::string image = std::string(FRCNN_SOURCE_DIR) + "/weights/images/BloodImage_00031.jpg";
  REQUIRE(tool::run({"detect", shipped, image, "--dump", dump}).code == 0);
  const std::string script = std::string(FRCNN_SOURCE_DIR) + "/tests/cli/opencv_net.py",
                    list = folder / "list";
  const std::string arguments = "'" + script + "' '" + folder / "bccd.prototxt" + "' '" + out + "' '" + dump +
                                "' conv5 rpn_cls_score rpn_bbox_pred rpn_cls_prob_reshape > '" + list + "'";
  if (!test::ran_oracle(arguments, "cv2")) return;
  std::istringstream lines(tool::read_file(list));
  std::string name;
  std::size_t elements = 0, compared = 0, tops = 0;
  double difference = 0, largest = 0;
  while (lines >> name && name != "detections" && lines >> elements >> difference >> largest) {
    INFO(name << ": " << difference << " of " << largest);
    CHECK(elements > 0);
    CHECK(difference <= 1e-4);
    compared += elements;
    ++tops;
  }
  CHECK(tops == 4);
  int detections = 0;
  CHECK(lines >> detections);
  CHECK(detections >= 20);
  WARN("compared " << compared << " elements of " << tops << " layers with OpenCV; it found " << detections
                   << " boxes");
}
