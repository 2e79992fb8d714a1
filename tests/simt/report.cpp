// What the engine says: who waits where, and which kernel it was.
#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>
#include <link.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "tests/simt/block.h"

namespace frcnn::simt {

bool operator==(const Site& a, const Site& b) {
  return a.line == b.line && (a.file == b.file || (a.file && b.file && std::strcmp(a.file, b.file) == 0));
}

std::string to_string(const Site& site) {
  const std::string file = site.file ? site.file : "?";
  return file.substr(file.find_last_of('/') + 1) + ":" + std::to_string(site.line);
}

std::string to_string(const uint3& index) {
  std::string text = "(";
  text.append(std::to_string(index.x)).append(", ").append(std::to_string(index.y)).append(", ");
  return text.append(std::to_string(index.z)).append(")");
}

std::string ranges(const std::vector<unsigned>& sorted) {
  std::string text;
  for (std::size_t i = 0; i < sorted.size();) {
    std::size_t last = i;
    while (last + 1 < sorted.size() && sorted[last + 1] == sorted[last] + 1) ++last;
    if (!text.empty()) text += ", ";
    text += std::to_string(sorted[i]);
    if (last > i) text.append("-").append(std::to_string(sorted[last]));
    i = last + 1;
  }
  return text;
}

std::string lane_ranges(unsigned mask) {
  std::vector<unsigned> lanes;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (mask >> lane & 1u) lanes.push_back(lane);
  }
  return ranges(lanes);
}

unsigned existing_lanes(const Block& block, unsigned warp) {
  const std::size_t left = block.threads.size() - std::size_t{warp} * 32;
  return left >= 32 ? 0xffffffffu : (1u << left) - 1u;
}

std::string who_waits(const Block& block) {
  std::map<std::string, std::vector<unsigned>> groups;
  for (const Thread& thread : block.threads) {
    std::string doing;
    switch (thread.state) {
      case State::returned:
        doing = "returned";
        break;
      case State::ready:
        doing = thread.spun
                    ? "polling in " + std::string(thread.operation) + " (" + to_string(thread.site) + ")"
                    : "running";
        break;
      default:
        doing = "waiting at " + std::string(thread.operation) + " (" + to_string(thread.site) + ")";
    }
    groups[doing].push_back(thread.linear);
  }
  std::string text;
  for (const auto& [doing, threads] : groups) {
    if (!text.empty()) text += "; ";
    text += doing + (threads.size() == 1 ? ": thread " : ": threads ") + ranges(threads);
  }
  return text;
}

namespace {

// Functions of the object file that holds `address`, from its full symbol table: kernels may have internal
// linkage, which the dynamic symbols do not show. Empty when the file was stripped.
using Symbols = std::map<std::uintptr_t, std::string>;

Symbols read_symbols(const char* path, std::uintptr_t base) {
  Symbols symbols;
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  ElfW(Ehdr) header;
  if (bytes.size() < sizeof header) return symbols;
  std::memcpy(&header, bytes.data(), sizeof header);
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return symbols;
  const auto section = [&](unsigned index) {
    ElfW(Shdr) s{};
    const std::size_t at = header.e_shoff + std::size_t{index} * sizeof s;
    if (at + sizeof s <= bytes.size()) std::memcpy(&s, bytes.data() + at, sizeof s);
    return s;
  };
  for (unsigned i = 0; i < header.e_shnum; ++i) {
    const ElfW(Shdr) table = section(i);
    if (table.sh_type != SHT_SYMTAB || table.sh_offset + table.sh_size > bytes.size()) continue;
    const ElfW(Shdr) names = section(table.sh_link);
    for (std::size_t at = 0; at + sizeof(ElfW(Sym)) <= table.sh_size; at += sizeof(ElfW(Sym))) {
      ElfW(Sym) symbol;
      std::memcpy(&symbol, bytes.data() + table.sh_offset + at, sizeof symbol);
      if ((symbol.st_info & 0xf) != STT_FUNC || symbol.st_value == 0) continue;
      const std::size_t name = names.sh_offset + symbol.st_name;
      if (name >= bytes.size()) continue;
      const std::uintptr_t offset = header.e_type == ET_DYN ? base : 0;
      symbols.emplace(offset + symbol.st_value, std::string(bytes.data() + name));
    }
  }
  return symbols;
}

// "void ns::gemm<4>(float*, int)" -> "ns::gemm<4>".
std::string without_signature(std::string name) {
  if (!name.empty() && name.back() == ')') {
    int depth = 0;
    for (std::size_t i = name.size(); i-- > 0;) {
      depth += name[i] == ')' ? 1 : name[i] == '(' ? -1 : 0;
      if (depth == 0) {
        name.resize(i);
        break;
      }
    }
  }
  return name.rfind("void ", 0) == 0 ? name.substr(5) : name;
}

}  // namespace

std::string kernel_name(const void* kernel) {
  static std::mutex mutex;
  static std::map<std::string, Symbols> files;
  const std::lock_guard lock(mutex);
  Dl_info info{};
  if (!dladdr(kernel, &info) || !info.dli_fname) return "?";
  auto found = files.find(info.dli_fname);
  if (found == files.end()) {
    // The first argument of main may be a relative path; the kernel's link to the program is not.
    Symbols symbols = read_symbols("/proc/self/exe", reinterpret_cast<std::uintptr_t>(info.dli_fbase));
    if (!symbols.count(reinterpret_cast<std::uintptr_t>(kernel))) {
      symbols = read_symbols(info.dli_fname, reinterpret_cast<std::uintptr_t>(info.dli_fbase));
    }
    found = files.emplace(info.dli_fname, std::move(symbols)).first;
  }
  const auto symbol = found->second.find(reinterpret_cast<std::uintptr_t>(kernel));
  std::string mangled = symbol != found->second.end() ? symbol->second
                        : info.dli_sname              ? info.dli_sname
                                                      : "?";
  int status = 1;
  char* demangled = abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status);
  if (status == 0) mangled = demangled;
  std::free(demangled);
  return without_signature(mangled);
}

}  // namespace frcnn::simt
