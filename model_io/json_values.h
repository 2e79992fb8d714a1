// Values of configuration files, read strictly: each complaint says what the value must be and what it is.
// What config_json.cpp and train_config_json.cpp share.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace frcnn::json_values {

using Json = nlohmann::ordered_json;

inline constexpr std::size_t max_json_bytes = 4u << 20;
inline constexpr double no_bound =
    1e6;  // of quantities without a natural bound; keeps products finite in float32

struct Problem {  // what is wrong with one value; the caller knows which value and which file
  std::string what;
};

std::string show(const Json& value);  // shortened
std::string show(double value);

// All throw Problem.
double number(const Json& value, double low, double high);
double positive(const Json& value);                                            // and at most no_bound
std::int64_t integer(const Json& value, std::int64_t low, std::int64_t high);  // high below 2^53
int small_integer(const Json& value, int low, int high);
bool flag(const Json& value);
std::string text(const Json& value, std::size_t shortest = 1);  // up to 256 bytes, no control characters
const Json& array(const Json& value, std::size_t shortest, std::size_t longest);
std::vector<double> positives(const Json& value);  // 1 to 64

// "; did you mean solver.base_lr?" where one of `keys` is close to `key`, else nothing. Sections are apart by
// a dot; a key without its section is close to the one with it.
std::string suggestion(const std::string& key, const std::vector<std::string>& keys);

template <typename E>
struct Word {
  E value;
  const char* text;
};

template <typename E, std::size_t N>
std::string word(const Word<E> (&words)[N], E value) {
  for (const auto& w : words)
    if (w.value == value) return w.text;
  throw Problem{"has no name in the file format"};
}

template <typename E, std::size_t N>
E from_word(const Word<E> (&words)[N], const Json& value) {
  std::string choices;
  for (const auto& w : words) {
    if (value.is_string() && value.get_ref<const std::string&>() == w.text) return w.value;
    choices += (choices.empty() ? "" : ", ") + std::string(w.text);
  }
  throw Problem{"must be one of " + choices + ", it is " + show(value)};
}

// The line on which each key stands, by its path: "solver.base_lr".
using KeyLines = std::map<std::string, int>;

// The document, with duplicate keys and deep nesting refused (the parser itself would take the last of two
// keys). Throws Error(bad_file) that begins with `what`, e.g. "FILE: the model configuration".
Json parse_strictly(const std::string& json, const std::string& what, KeyLines* lines = nullptr);

}  // namespace frcnn::json_values
