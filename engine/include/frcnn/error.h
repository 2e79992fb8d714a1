// The one error type of the library.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace frcnn {

enum class ErrorCode {
  invalid_argument,  // the caller asked for something that makes no sense
  io,                // a file could not be opened, read, written or mapped
  bad_file,          // a file's content is not what its format allows
  bad_model,         // weights or conventions that do not make a detector
  unsupported,       // a legal request that this build, device or precision cannot serve
  out_of_memory,     // an arena or a device cannot hold what was asked
  numeric,           // a NaN or an infinity where a number is needed
  device,            // the device or its driver failed
};

// An error is a value: a code for programs and one sentence for people. The sentence names the file, layer
// or tensor concerned ("conv4_2.weight: expected 512x512x3x3, the file has 512x256x3x3").
// The library throws it, never prints and never aborts; after a throw the object called is as it was before.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, std::string message) : std::runtime_error(std::move(message)), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace frcnn
