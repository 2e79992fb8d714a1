// Where a JSON text stops being JSON, in this project's words.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace frcnn {

// "line 3, column 7 (byte 41): not JSON from here on" for an exception that nlohmann's parser threw over
// `text`. Lines, columns and bytes count from 1; a text cut short is named as such.
std::string json_problem(const nlohmann::json::exception& error, std::string_view text);

}  // namespace frcnn
