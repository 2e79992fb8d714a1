// A small data set in VOC's layout, made in a temporary folder: pictures with bright rectangles where the
// objects are.
#pragma once

#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "model_io/image_file.h"

namespace frcnn::voc_folder {

struct Object {
  std::string name;
  std::array<int, 4> box{};  // as written: counted from 1, inclusive
  bool difficult = false;
};

class VocFolder {
 public:
  VocFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "frcnn-voc-XXXXXX").string();
    if (!::mkdtemp(pattern.data())) throw std::runtime_error("cannot make a temporary folder");
    root_ = pattern;
    for (const char* folder : {"Annotations", "ImageSets/Main", "JPEGImages"})
      std::filesystem::create_directories(root_ / folder);
  }
  ~VocFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }
  VocFolder(const VocFolder&) = delete;
  VocFolder& operator=(const VocFolder&) = delete;

  std::string path() const { return root_.string(); }
  std::string operator/(const std::string& name) const { return (root_ / name).string(); }
  std::string annotation(const std::string& id) const { return *this / ("Annotations/" + id + ".xml"); }
  std::string picture(const std::string& id) const { return *this / ("JPEGImages/" + id + ".png"); }

  void write(const std::string& name, const std::string& text) const {
    std::ofstream out(root_ / name, std::ios::binary);
    out << text;
    if (!out.flush()) throw std::runtime_error("cannot write " + name);
  }

  static std::string xml(int width, int height, const std::vector<Object>& objects) {
    std::string text = "<annotation>\n  <filename>x.png</filename>\n";
    if (width > 0)
      text += "  <size>\n    <width>" + std::to_string(width) + "</width>\n    <height>" +
              std::to_string(height) + "</height>\n  </size>\n";
    for (const Object& o : objects) {
      text += "  <object>\n    <name>" + o.name + "</name>\n    <difficult>" + (o.difficult ? "1" : "0") +
              "</difficult>\n    <bndbox>\n";
      constexpr const char* sides[] = {"xmin", "ymin", "xmax", "ymax"};
      for (std::size_t i = 0; i < 4; ++i)
        text += "      <" + std::string(sides[i]) + ">" + std::to_string(o.box[i]) + "</" + sides[i] + ">\n";
      text += "    </bndbox>\n  </object>\n";
    }
    return text + "</annotation>\n";
  }

  // A noisy picture whose objects are rectangles of their class's brightness, and its annotation.
  void add(const std::string& id, int width, int height, const std::vector<Object>& objects) {
    std::mt19937 random(static_cast<unsigned>(ids_.size()) + 11);
    Image image;
    image.width = width;
    image.height = height;
    for (int i = 0; i < width * height * 3; ++i)
      image.bgr.push_back(static_cast<std::uint8_t>(100 + random() % 24));
    for (const Object& o : objects)
      for (int y = std::max(o.box[1], 1); y <= std::min(o.box[3], height); ++y)
        for (int x = std::max(o.box[0], 1); x <= std::min(o.box[2], width); ++x)
          for (int c = 0; c < 3; ++c)
            image.bgr[static_cast<std::size_t>(((y - 1) * width + x - 1) * 3 + c)] =
                o.name == "cat" ? 230 : 20;
    write_png(picture(id), image);
    write("Annotations/" + id + ".xml", xml(width, height, objects));
    ids_.push_back(id);
  }

  void set(const std::string& name, const std::vector<std::string>& ids) const {
    std::string text;
    for (const std::string& id : ids) text += id + "\n";
    write("ImageSets/Main/" + name + ".txt", text);
  }
  // The set `name` of everything that was added.
  void set(const std::string& name) const { set(name, ids_); }

 private:
  std::filesystem::path root_;
  std::vector<std::string> ids_;
};

// Cats and dogs in `count` pictures, wide ones and tall ones.
inline void fill(VocFolder& folder, int count) {
  for (int i = 0; i < count; ++i) {
    const int w = i % 3 == 2 ? 60 : 90, h = i % 3 == 2 ? 90 : 60, x = 1 + i * 7 % 40, y = 1 + i * 5 % 30;
    folder.add("p" + std::to_string(i), w, h,
               {{"cat", {x, y, x + 19, y + 19}}, {"dog", {w - 21, h - 15, w - 2, h}}});
  }
  folder.set("train");
}

}  // namespace frcnn::voc_folder
