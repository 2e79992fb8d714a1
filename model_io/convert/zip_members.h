// The members of a zip archive as torch.save writes them: stored, not compressed. libzip stays behind this
// header.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace frcnn {

// Checked whole when opened: no member may be compressed, encrypted, a link or a folder, twice there, or
// named by an absolute path or one that climbs; together they may not claim more bytes than the archive has.
// Nothing is ever extracted. Not for several threads at a time. Throws Error(bad_file) or Error(unsupported),
// with `source` in front.
class ZipMembers {
 public:
  // `bytes` is the whole archive and must outlive the object.
  ZipMembers(std::span<const std::byte> bytes, const std::string& source);
  ~ZipMembers();
  ZipMembers(const ZipMembers&) = delete;
  ZipMembers& operator=(const ZipMembers&) = delete;

  std::vector<std::string> names() const;  // in alphabetical order
  bool has(const std::string& name) const { return members_.count(name) != 0; }
  std::uint64_t size_of(const std::string& name) const;  // Error(bad_file) if it is not there
  // The whole member, its checksum compared.
  std::shared_ptr<const std::vector<std::byte>> read(const std::string& name) const;

 private:
  struct Member {
    std::uint64_t index = 0, size = 0;
  };
  const Member& member(const std::string& name) const;

  std::string source_;
  struct Archive;
  std::unique_ptr<Archive> archive_;
  std::map<std::string, Member> members_;
};

}  // namespace frcnn
