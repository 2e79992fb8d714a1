#include "model_io/json_values.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>
#include <set>
#include <utility>

#include "frcnn/error.h"
#include "model_io/json_error.h"
#include "model_io/safetensors.h"

namespace frcnn::json_values {
namespace {

constexpr int max_depth = 8;

// Reads characters and counts lines, since the parser tells nobody where it is.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, int* line) : at_(at), line_(line) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    if (*at_++ == '\n') ++*line_;
    return *this;
  }
  CountingIterator operator++(int) {
    CountingIterator old = *this;
    ++*this;
    return old;
  }
  bool operator==(const CountingIterator& other) const { return at_ == other.at_; }
  bool operator!=(const CountingIterator& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  int* line_;
};

// Characters to insert, leave out or exchange until one text is the other.
std::size_t edits_between(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t other = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({other, diagonal + 1, row[j] + 1});
    }
  }
  return row.back();
}

// "solver.base_lr": "solver" and "base_lr".
std::pair<std::string, std::string> split_key(const std::string& key) {
  const std::size_t dot = key.rfind('.');
  if (dot == std::string::npos) return {"", key};
  return {key.substr(0, dot), key.substr(dot + 1)};
}

// How far another key is: first with its section counted as one edit, then, among those equally far, letter by letter.
std::pair<std::size_t, std::size_t> nearness(const std::string& key, const std::string& other) {
  const auto [section, name] = split_key(key);
  const auto [other_section, other_name] = split_key(other);
  std::size_t names = edits_between(name, other_name);
  const bool part = ("_" + other_name + "_").find("_" + name + "_") != std::string::npos;
  if (part) names = std::min<std::size_t>(names, 2);  // lr and base_lr
  const std::size_t elsewhere = section.empty() || section == other_section ? 0 : 1;
  const std::size_t letters = edits_between(key, other);
  return {std::min(names + elsewhere, letters), letters};
}

}  // namespace

std::string suggestion(const std::string& key, const std::vector<std::string>& keys) {
  if (key.size() > 64) return {};  // nobody's slip, and the work grows with it
  const std::string* best = nullptr;
  std::pair<std::size_t, std::size_t> least;
  for (const std::string& other : keys) {
    const auto near = nearness(key, other);
    if (best && near >= least) continue;
    best = &other;
    least = near;
  }
  const std::size_t allowed = std::max<std::size_t>(2, split_key(key).second.size() / 3);
  return best && least.first <= allowed ? "; did you mean " + *best + "?" : std::string();
}

std::string show(const Json& value) {
  const std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() > 80 ? text.substr(0, 80) + "..." : text;
}

std::string show(double value) { return Json(value).dump(); }

double number(const Json& value, double low, double high) {
  const double x = value.is_number() ? value.get<double>() : std::nan("");
  if (!(x >= low && x <= high))
    throw Problem{"must be a number from " + show(low) + " to " + show(high) + ", it is " + show(value)};
  return x;
}

double positive(const Json& value) {
  const double x = value.is_number() ? value.get<double>() : std::nan("");
  if (!(x > 0 && x <= no_bound))
    throw Problem{"must be a number above 0 and at most " + show(no_bound) + ", it is " + show(value)};
  return x;
}

std::int64_t integer(const Json& value, std::int64_t low, std::int64_t high) {
  // Every upper bound is below 2^53, so a huge unsigned number cannot slip through as a negative one.
  const bool fits = value.is_number_integer() && value.get<double>() <= static_cast<double>(high) &&
                    value.get<double>() >= static_cast<double>(low);
  if (!fits)
    throw Problem{"must be a whole number from " + std::to_string(low) + " to " + std::to_string(high) +
                  ", it is " + show(value)};
  return value.get<std::int64_t>();
}

int small_integer(const Json& value, int low, int high) {
  return static_cast<int>(integer(value, low, high));
}

bool flag(const Json& value) {
  if (!value.is_boolean()) throw Problem{"must be true or false, it is " + show(value)};
  return value.get<bool>();
}

// Names end up in tables, pictures and other files: nothing that a terminal would obey.
std::string text(const Json& value, std::size_t shortest) {
  const bool is_text = value.is_string();
  const std::string s = is_text ? value.get<std::string>() : std::string();
  const bool clean = std::none_of(s.begin(), s.end(),
                                  [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
  if (!is_text || !clean || s.size() < shortest || s.size() > 256)
    throw Problem{"must be a string of " + std::to_string(shortest) +
                  " to 256 bytes without control characters, it is " + show(value)};
  return s;
}

const Json& array(const Json& value, std::size_t shortest, std::size_t longest) {
  if (!value.is_array() || value.size() < shortest || value.size() > longest)
    throw Problem{"must be a list of " + std::to_string(shortest) +
                  (shortest == longest ? "" : " to " + std::to_string(longest)) + " values, it is " +
                  show(value)};
  return value;
}

std::vector<double> positives(const Json& value) {
  std::vector<double> list;
  for (const Json& item : array(value, 1, 64)) list.push_back(positive(item));
  return list;
}

Json parse_strictly(const std::string& json, const std::string& what, KeyLines* lines) {
  struct Open {
    std::set<std::string> keys;
    std::string path;  // of the object, with a dot at its end
  };
  std::vector<Open> objects;
  std::string path;  // of the last key
  int line = 1;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > max_depth) throw Problem{"is nested too deeply"};
    if (event == Json::parse_event_t::object_start) objects.push_back({{}, path.empty() ? path : path + "."});
    if (event == Json::parse_event_t::object_end) {
      path =
          objects.back().path.substr(0, objects.back().path.size() - (objects.back().path.empty() ? 0 : 1));
      objects.pop_back();
    }
    if (event == Json::parse_event_t::key) {
      const std::string key = parsed.get<std::string>();
      if (!objects.back().keys.insert(key).second) throw Problem{"has the key " + printable(key) + " twice"};
      path = objects.back().path + key;
      if (lines) lines->emplace(path, line);
    }
    return true;
  };
  if (json.size() > max_json_bytes)
    throw Error(ErrorCode::bad_file, what + " has " + std::to_string(json.size()) + " bytes, at most " +
                                         std::to_string(max_json_bytes) + " are allowed");
  try {
    const char* const begin = json.data();
    return Json::parse(CountingIterator(begin, &line), CountingIterator(begin + json.size(), &line), watch);
  } catch (const Problem& problem) {
    const std::string where = lines ? " (line " + std::to_string(line) + ")" : "";
    throw Error(ErrorCode::bad_file, what + " " + problem.what + where);
  } catch (const Json::exception& error) {
    throw Error(ErrorCode::bad_file, what + " is not JSON: " + json_problem(error, json));
  }
}

}  // namespace frcnn::json_values
