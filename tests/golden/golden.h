// Access to the golden reference data: finding it, choosing cases by name, comparing, and counting what was
// compared.
//
//   TEST_CASE("golden: something") {
//     const auto file = golden::open("layers.safetensors");
//     if (!file) return;                                   // no reference data on this machine; open() has
//     warned golden::Tally tally("something"); for (const auto& m : golden::matching(*file,
//     R"((c\w+)\.output)")) { ... tally.compare(m[0], got, want, ...); } tally.finish(); // prints the count;
//     none compared is a failure
//   }
//
// The folder is $FRCNN_SHARED, or ../shared beside the source tree. If the variable is set, a missing file
// fails the test; if it is not set and the folder is not there, the test is skipped with a warning.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <limits>
#include <memory>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "catch.h"
#include "model_io/safetensors.h"

namespace frcnn::golden {

// The folder of reference data. Empty (after a warning) only where the variable is unset and the folder is
// absent.
inline std::filesystem::path shared_directory() {
  if (const char* set = std::getenv("FRCNN_SHARED"); set && *set) {
    if (!std::filesystem::is_directory(set)) FAIL("FRCNN_SHARED is set, but there is no folder " << set);
    return set;
  }
  const std::filesystem::path beside = std::filesystem::path(FRCNN_SOURCE_DIR) / ".." / "shared";
  if (std::filesystem::is_directory(beside / "golden")) return beside;
  WARN("SKIPPED: no reference data. FRCNN_SHARED is unset and " << beside.string() << " does not exist");
  return {};
}

// The path of golden/`name`, which exists; empty where shared_directory() is empty.
inline std::filesystem::path path(const std::string& name) {
  const auto shared = shared_directory();
  if (shared.empty()) return {};
  const auto file = shared / "golden" / name;
  if (!std::filesystem::exists(file)) FAIL("missing golden file " << file.string());
  return file;
}

// Null where shared_directory() is empty.
inline std::shared_ptr<const SafetensorsFile> open(const std::string& name) {
  const auto file = path(name);
  return file.empty() ? nullptr : SafetensorsFile::open(file.string());
}

// A JSON file of the golden folder; null (the JSON value) where shared_directory() is empty.
inline nlohmann::json open_json(const std::string& name) {
  const auto file = path(name);
  if (file.empty()) return nullptr;
  std::ifstream stream(file);
  return nlohmann::json::parse(stream);
}

inline const StoredTensor& tensor(const SafetensorsFile& file, const std::string& name) {
  const StoredTensor* found = file.find(name);
  if (!found) FAIL(file.path() << " has no tensor " << name);
  return *found;
}

namespace detail {
template <typename Stored, typename T>
void convert(const StoredTensor& from, std::vector<T>& to) {
  const auto* bytes = static_cast<const unsigned char*>(from.data);
  for (std::size_t i = 0; i < to.size(); ++i) {
    Stored value;
    std::memcpy(&value, bytes + i * sizeof(Stored), sizeof(Stored));  // a file's tensors need not be aligned
    to[i] = static_cast<T>(value);
  }
}
}  // namespace detail

// A tensor's elements, whatever their stored type (f32, f64, i32, i64 or u8), converted to T.
template <typename T = float>
std::vector<T> values(const StoredTensor& from) {
  std::vector<T> to(from.bytes / size_of(from.dtype));
  switch (from.dtype) {
    case DType::f32:
      detail::convert<float>(from, to);
      break;
    case DType::f64:
      detail::convert<double>(from, to);
      break;
    case DType::i32:
      detail::convert<std::int32_t>(from, to);
      break;
    case DType::i64:
      detail::convert<std::int64_t>(from, to);
      break;
    case DType::u8:
      detail::convert<std::uint8_t>(from, to);
      break;
    default:
      FAIL(from.name << ": no golden tensor is expected to be " << name_of(from.dtype));
  }
  return to;
}
template <typename T = float>
std::vector<T> values(const SafetensorsFile& file, const std::string& name) {
  return values<T>(tensor(file, name));
}

// Every tensor name that matches the whole pattern (ECMAScript), in file order: [0] the name, [1..] the
// groups.
inline std::vector<std::vector<std::string>> matching(const SafetensorsFile& file,
                                                      const std::string& pattern) {
  const std::regex expression(pattern);
  std::vector<std::vector<std::string>> found;
  for (const StoredTensor& t : file.tensors()) {
    std::smatch match;
    if (std::regex_match(t.name, match, expression)) found.emplace_back(match.begin(), match.end());
  }
  return found;
}

// One metadata entry. Values are strings that hold JSON, or plain text.
inline nlohmann::json metadata(const SafetensorsFile& file, const std::string& key) {
  const auto found = file.metadata().find(key);
  if (found == file.metadata().end()) FAIL(file.path() << " has no metadata entry " << key);
  nlohmann::json parsed = nlohmann::json::parse(found->second, nullptr, false);
  return parsed.is_discarded() ? nlohmann::json(found->second) : parsed;
}

inline double number(const SafetensorsFile& file, const std::string& key) {
  const nlohmann::json value = metadata(file, key);
  if (!value.is_number())
    FAIL(file.path() << ": metadata entry " << key << " is not a number: " << value.dump());
  return value.get<double>();
}

template <typename T>
std::vector<T> nchw_to_nhwc(const std::vector<T>& src, std::int64_t n, std::int64_t c, std::int64_t h,
                            std::int64_t w) {
  std::vector<T> dst(src.size());
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t k = 0; k < c; ++k)
      for (std::int64_t p = 0; p < h * w; ++p)
        dst[static_cast<std::size_t>((i * h * w + p) * c + k)] =
            src[static_cast<std::size_t>((i * c + k) * h * w + p)];
  return dst;
}
template <typename T>
std::vector<T> nhwc_to_nchw(const std::vector<T>& src, std::int64_t n, std::int64_t c, std::int64_t h,
                            std::int64_t w) {
  return nchw_to_nhwc(src, n, h * w, c, 1);
}
// A golden rank-4 tensor, moved to NHWC.
inline std::vector<float> nhwc(const SafetensorsFile& file, const std::string& name) {
  const StoredTensor& t = tensor(file, name);
  if (t.shape.size() != 4)
    FAIL(file.path() << ": " << name << " has " << t.shape.size() << " dimensions, expected 4");
  return nchw_to_nhwc(values<float>(t), t.shape[0], t.shape[1], t.shape[2], t.shape[3]);
}

// Counts what one test compared and remembers the worst of it. Every comparison reports its first mismatch as
// a failed check; finish() prints the summary.
class Tally {
 public:
  explicit Tally(std::string what) : what_(std::move(what)) {}

  // |got - want| <= absolute + relative * |want| for every element; both NaN, or the same infinity, is equal.
  template <typename A, typename B>
  void compare(const std::string& name, const std::vector<A>& got, const std::vector<B>& want,
               double absolute, double relative = 0) {
    INFO(what_ << ": " << name);
    CHECK(got.size() == want.size());
    std::size_t bad = 0, first = 0;
    for (std::size_t i = 0; i < std::min(got.size(), want.size()); ++i) {
      const double g = static_cast<double>(got[i]), w = static_cast<double>(want[i]);
      ++compared_;
      if (g == w || (std::isnan(g) && std::isnan(w))) continue;
      const double error = std::abs(g - w);
      if (std::isfinite(error)) worst_ = std::max(worst_, error);
      if (error <= absolute + relative * std::abs(w)) continue;  // false for NaN
      if (bad++ == 0) first = i;
    }
    if (bad) {
      std::ostringstream text;
      text.precision(std::numeric_limits<double>::max_digits10);
      text << bad << " of " << got.size() << " elements differ; element " << first << ": got "
           << static_cast<double>(got[first]) << ", expected " << static_cast<double>(want[first]);
      FAIL_CHECK(text.str());
    } else {
      SUCCEED();
    }
  }

  template <typename A, typename B>
  void equal(const std::string& name, const std::vector<A>& got, const std::vector<B>& want) {
    compare(name, got, want, 0);
  }

  // For comparisons that a test makes itself.
  void count(std::size_t elements) { compared_ += elements; }

  void finish() const {
    std::cout << "golden " << what_ << ": " << compared_ << " elements compared, largest difference "
              << worst_ << "\n";
    INFO(what_ << ": nothing was compared");
    CHECK(compared_ > 0);
  }

 private:
  std::string what_;
  std::size_t compared_ = 0;
  double worst_ = 0;
};

}  // namespace frcnn::golden
