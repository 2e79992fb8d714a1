#include "vendor/shared_library.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <link.h>

#include <cstdlib>

#include "frcnn/error.h"

namespace frcnn::vendor {
namespace {

std::string last_error() {
  const char* const error = dlerror();
  return error ? error : "no reason given";
}

}  // namespace

SharedLibrary::SharedLibrary(const LibraryNames& names) : library_(names.library) {
  const char* const named = std::getenv(names.variable.c_str());
  const bool is_named = named && *named;
  const std::vector<std::string> files = is_named ? std::vector<std::string>{named} : names.sonames;
  std::string reasons;
  for (const std::string& file : files) {
    handle_ = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_) {
      file_ = file;
      break;
    }
    reasons += fmt::format("{}{}: {}", reasons.empty() ? "" : "; ", file, last_error());
  }
  if (!handle_)
    throw Error(ErrorCode::unsupported,
                fmt::format("{} was not found{}: tried {}", library_,
                            is_named ? fmt::format(" where {} says", names.variable)
                                     : fmt::format(" ({} can name its file)", names.variable),
                            reasons));
  link_map* map = nullptr;  // says which file a soname led to
  if (dlinfo(handle_, RTLD_DI_LINKMAP, &map) == 0 && map && map->l_name && *map->l_name) file_ = map->l_name;
}

void* SharedLibrary::address(const char* symbol) const {
  void* const found = dlsym(handle_, symbol);
  if (!found)
    throw Error(ErrorCode::unsupported,
                fmt::format("{}: {} has no function {}", library_, file_, symbol));
  return found;
}

}  // namespace frcnn::vendor
