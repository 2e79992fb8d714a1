#include "image_list.h"

#include <fmt/format.h>
#include <glob.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <system_error>

#include "frcnn/error.h"

namespace frcnn {
namespace {

namespace fs = std::filesystem;

bool is_image_name(const fs::path& path) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return extension == ".jpg" || extension == ".jpeg" || extension == ".png" || extension == ".bmp";
}

void append_directory(const std::string& directory, std::vector<std::string>& images) {
  std::vector<std::string> found;
  std::error_code code;
  for (fs::directory_iterator it(directory, code), end; !code && it != end; it.increment(code)) {
    if (is_image_name(it->path()) && !it->is_directory()) found.push_back(it->path().string());
  }
  if (code) throw Error(ErrorCode::io, directory + ": cannot list the directory: " + code.message());
  if (found.empty())
    throw Error(ErrorCode::io, directory + ": the directory holds no .jpg, .jpeg, .png or .bmp file");
  std::sort(found.begin(), found.end());
  images.insert(images.end(), found.begin(), found.end());
}

void append_glob(const std::string& pattern, std::vector<std::string>& images) {
  glob_t matches{};
  const int status = glob(pattern.c_str(), GLOB_TILDE, nullptr, &matches);
  std::vector<std::string> found;
  for (std::size_t i = 0; status == 0 && i < matches.gl_pathc; ++i) {
    std::error_code code;
    if (!fs::is_directory(matches.gl_pathv[i], code)) found.emplace_back(matches.gl_pathv[i]);
  }
  globfree(&matches);
  if (status != 0 && status != GLOB_NOMATCH)
    throw Error(ErrorCode::io, pattern + ": cannot expand the pattern");
  if (found.empty()) throw Error(ErrorCode::io, pattern + ": no file matches the pattern");
  images.insert(images.end(), found.begin(), found.end());
}

// One spelling per file, so that `a.png`, `./a.png` and a link's target count as the same.
std::string identity(const fs::path& path) {
  std::error_code code;
  const fs::path canonical = fs::weakly_canonical(path, code);
  return (code ? path.lexically_normal() : canonical).string();
}

}  // namespace

std::vector<std::string> expand_images(const std::vector<std::string>& arguments,
                                       std::vector<std::string>& problems) {
  std::vector<std::string> images;
  for (const std::string& argument : arguments) {
    std::error_code code;
    try {
      if (fs::is_directory(argument, code)) {
        append_directory(argument, images);
      } else if (!fs::exists(argument, code) && argument.find_first_of("*?[") != std::string::npos) {
        append_glob(argument, images);
      } else {
        images.push_back(argument);
      }
    } catch (const Error& error) {
      problems.push_back(error.what());
    }
  }
  return images;
}

const ImageProposals& find_proposals(std::span<const ImageProposals> images, const std::string& source,
                                     const std::string& image) {
  using Spelling = std::string (*)(const std::string&);
  const Spelling spellings[] = {
      [](const std::string& name) { return name; },
      [](const std::string& name) { return fs::path(name).filename().string(); },
      [](const std::string& name) { return fs::path(name).stem().string(); },
  };
  for (const Spelling spelling : spellings) {
    const ImageProposals* found = nullptr;
    for (const ImageProposals& entry : images) {
      if (spelling(entry.file) != spelling(image)) continue;
      if (found)
        throw Error(ErrorCode::invalid_argument, source + ": more than one entry fits image " + image);
      found = &entry;
    }
    if (found) return *found;
  }
  throw Error(ErrorCode::invalid_argument, source + ": no entry for image " + image);
}

OutputNames::OutputNames(std::string directory, const std::vector<std::string>& images)
    : directory_(std::move(directory)) {
  for (const std::string& image : images) taken_.insert(identity(image));
}

std::string OutputNames::next(const std::string& image) {
  const std::string stem = fs::path(image).stem().string();
  for (int number = 1;; ++number) {
    const std::string name = number == 1 ? stem + ".png" : fmt::format("{}-{}.png", stem, number);
    const fs::path path = fs::path(directory_) / name;
    if (taken_.insert(identity(path)).second) return path.string();
  }
}

}  // namespace frcnn
