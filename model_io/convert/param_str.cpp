#include "model_io/convert/param_str.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>

#include "frcnn/error.h"

namespace frcnn {
namespace {

class Parser {
 public:
  Parser(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  ParamStr parse() {
    ParamStr result;
    skip_blank();
    const bool braces = accept('{');
    for (;;) {
      skip_blank(true);
      if (braces && accept('}')) break;
      if (at_end()) {
        if (braces) fail("the brace is not closed");
        break;
      }
      const std::string name = key();
      skip_blank();
      if (!accept(':')) fail("expected `:` after " + name);
      if (!result.numbers.emplace(name, value()).second) fail(name + " is given twice");
      const std::size_t line_end = at_;
      skip_spaces();
      if (!at_end() && peek() != '\n' && peek() != '\r' && peek() != ',' && peek() != '}' && peek() != '#') {
        at_ = line_end;
        fail("expected the end of " + name + "'s value");
      }
    }
    skip_blank();
    if (!at_end()) fail("expected the end");
    return result;
  }

 private:
  bool at_end() const { return at_ >= text_.size(); }
  char peek() const { return text_[at_]; }
  bool accept(char c) {
    if (at_end() || peek() != c) return false;
    ++at_;
    return true;
  }
  void skip_spaces() {
    while (!at_end() && (peek() == ' ' || peek() == '\t')) ++at_;
  }
  void skip_blank(bool commas = false) {
    for (; !at_end(); ++at_) {
      if (peek() == '#') {
        while (!at_end() && peek() != '\n') ++at_;
        if (at_end()) return;
      } else if (!std::isspace(static_cast<unsigned char>(peek())) && !(commas && peek() == ',')) {
        return;
      }
    }
  }

  std::string key() {
    const char quote = peek() == '\'' || peek() == '"' ? peek() : '\0';
    if (quote) ++at_;
    const std::size_t start = at_;
    while (!at_end() && (std::isalnum(static_cast<unsigned char>(peek())) || peek() == '_')) ++at_;
    const std::string name(text_.substr(start, at_ - start));
    if (name.empty()) fail("expected a name");
    if (quote && !accept(quote)) fail("the quote is not closed");
    return name;
  }

  std::vector<double> value() {
    skip_spaces();
    if (!at_end() && peek() == '!') {  // a tag, such as !!python/tuple
      while (!at_end() && !std::isspace(static_cast<unsigned char>(peek())) && peek() != '[') ++at_;
      skip_spaces();
    }
    const char close = at_end() ? '\0' : peek() == '[' ? ']' : peek() == '(' ? ')' : '\0';
    if (close) {
      ++at_;
      return list(close);
    }
    if (at_end() || peek() == '\n' || peek() == '\r') return lines();
    const std::size_t start = at_;
    double single;
    if (number(single)) return {single};
    at_ = start;  // a word: known to nobody here, but legal
    while (!at_end() && peek() != '\n' && peek() != ',' && peek() != '}') ++at_;
    return {};
  }

  std::vector<double> list(char close) {
    std::vector<double> values;
    for (;;) {
      skip_blank();
      if (accept(close)) return values;
      double next;
      if (!number(next)) fail(fmt::format("expected a number or `{}`", close));
      values.push_back(next);
      skip_blank();
      if (accept(close)) return values;
      if (!accept(',')) fail(fmt::format("expected `,` or `{}`", close));
    }
  }

  std::vector<double> lines() {
    std::vector<double> values;
    for (;;) {
      const std::size_t before = at_;
      skip_blank();
      if (!accept('-')) {
        at_ = before;
        if (values.empty()) fail("expected a value");
        return values;
      }
      skip_spaces();
      double next;
      if (!number(next)) fail("expected a number after `-`");
      values.push_back(next);
    }
  }

  bool number(double& result) {
    if (!at_end() && peek() == '+') ++at_;
    const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), result);
    if (error != std::errc() || !std::isfinite(result)) return false;
    at_ = static_cast<std::size_t>(end - text_.data());
    return true;
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorCode::bad_file, fmt::format("{}: param_str, character {}: {}", where_,
                                                 std::min(at_, text_.size()) + 1, what));
  }

  std::string_view text_;
  const std::string& where_;
  std::size_t at_ = 0;
};

}  // namespace

ParamStr parse_param_str(std::string_view text, const std::string& where) {
  return Parser(text, where).parse();
}

}  // namespace frcnn
