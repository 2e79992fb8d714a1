// A library that is looked for when the program runs.
#pragma once

#include <string>
#include <vector>

namespace frcnn::vendor {

struct LibraryNames {
  std::string library;               // for people: "cuDNN"
  std::string variable;              // of the environment; where it is set to something, only that file is tried
  std::vector<std::string> sonames;  // tried in this order
};

// Opened, and never closed again: the libraries of CUDA do not take well to being unloaded.
class SharedLibrary {
 public:
  // Throws Error(unsupported) with every name that was tried and what the system said to it.
  explicit SharedLibrary(const LibraryNames& names);

  const std::string& file() const { return file_; }  // that it lies in

  // Throws Error(unsupported) that names the file and the function that it lacks.
  template <class F>
  void load(F*& function, const char* symbol) const {
    function = reinterpret_cast<F*>(address(symbol));
  }

 private:
  void* address(const char* symbol) const;
  std::string library_, file_;
  void* handle_ = nullptr;
};

}  // namespace frcnn::vendor
