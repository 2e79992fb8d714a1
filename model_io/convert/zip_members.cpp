#include "model_io/convert/zip_members.h"

#include <fmt/format.h>
#include <zip.h>

#include "frcnn/error.h"
#include "model_io/safetensors.h"

namespace frcnn {
namespace {

constexpr std::uint64_t max_members = 1u << 17;  // a checkpoint has one for each tensor, and a few
constexpr std::uint32_t unix_type = 0170000, unix_link = 0120000, unix_folder = 0040000, unix_file = 0100000;

std::string text_of(zip_error_t& error) { return zip_error_strerror(&error); }

// Why no honest program would write such a name; empty for a good one.
const char* wrong_with(const std::string& name) {
  if (name.empty()) return "has an empty name";
  if (name.front() == '/' || name.front() == '\\' || (name.size() > 1 && name[1] == ':'))
    return "has an absolute name";
  for (std::size_t at = 0; at <= name.size();) {
    const std::size_t end = std::min(name.find_first_of("/\\", at), name.size());
    if (name.compare(at, end - at, "..") == 0) return "has a name that climbs out of the archive";
    at = end + 1;
  }
  for (const char c : name)
    if (static_cast<unsigned char>(c) < 0x20) return "has a control byte in its name";
  return nullptr;
}

}  // namespace

struct ZipMembers::Archive {
  zip_t* zip = nullptr;
  ~Archive() {
    if (zip) zip_discard(zip);
  }
};

ZipMembers::ZipMembers(std::span<const std::byte> bytes, const std::string& source)
    : source_(source), archive_(std::make_unique<Archive>()) {
  const auto fail = [&](const std::string& what, ErrorCode code = ErrorCode::bad_file) {
    throw Error(code, source_ + ": " + what);
  };
  zip_error_t error;
  zip_error_init(&error);
  zip_source_t* const buffer = zip_source_buffer_create(bytes.data(), bytes.size(), 0, &error);
  if (buffer) archive_->zip = zip_open_from_source(buffer, ZIP_RDONLY, &error);
  if (!archive_->zip) {
    if (buffer) zip_source_free(buffer);
    const std::string text = text_of(error);
    zip_error_fini(&error);
    fail("the zip archive cannot be opened: " + text);
  }
  zip_error_fini(&error);

  const zip_int64_t count = zip_get_num_entries(archive_->zip, 0);
  if (count < 0 || static_cast<std::uint64_t>(count) > max_members)
    fail(fmt::format("a zip archive of {} members, at most {} are allowed", count, max_members));
  std::uint64_t total = 0;
  for (zip_uint64_t i = 0; i < static_cast<zip_uint64_t>(count); ++i) {
    zip_stat_t stat;
    zip_stat_init(&stat);
    constexpr zip_uint64_t wanted =
        ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
    if (zip_stat_index(archive_->zip, i, ZIP_FL_ENC_RAW, &stat) != 0 || (stat.valid & wanted) != wanted)
      fail(fmt::format("member {} of the zip archive cannot be read", i));
    const std::string name = stat.name;
    const auto refuse = [&](const std::string& what, ErrorCode code = ErrorCode::bad_file) {
      fail(fmt::format("the zip member {} {}", printable(name), what), code);
    };
    if (const char* wrong = wrong_with(name)) refuse(wrong);
    zip_uint8_t system = 0;
    zip_uint32_t attributes = 0;
    if (zip_file_get_external_attributes(archive_->zip, i, 0, &system, &attributes) != 0)
      refuse("cannot be read");
    const std::uint32_t type = system == ZIP_OPSYS_UNIX ? attributes >> 16 & unix_type : 0;
    if (type == unix_link) refuse("is a symbolic link");
    if (type == unix_folder || name.back() == '/') refuse("is a folder, which torch.save does not write");
    if (type != 0 && type != unix_file) refuse("is no regular file");
    if (stat.encryption_method != ZIP_EM_NONE) refuse("is encrypted", ErrorCode::unsupported);
    if (stat.comp_method != ZIP_CM_STORE)
      refuse("is compressed; torch.save stores its members as they are", ErrorCode::unsupported);
    if (stat.size > bytes.size() - total)
      refuse(fmt::format("claims {} bytes: with those before it, more than the archive has ({})", stat.size,
                         bytes.size()));
    total += stat.size;
    if (!members_.emplace(name, Member{i, stat.size}).second) refuse("is there twice");
  }
}

ZipMembers::~ZipMembers() = default;

std::vector<std::string> ZipMembers::names() const {
  std::vector<std::string> names;
  for (const auto& [name, member] : members_) names.push_back(name);
  return names;
}

const ZipMembers::Member& ZipMembers::member(const std::string& name) const {
  const auto found = members_.find(name);
  if (found == members_.end())
    throw Error(ErrorCode::bad_file,
                fmt::format("{}: the zip member {} is missing", source_, printable(name)));
  return found->second;
}

std::uint64_t ZipMembers::size_of(const std::string& name) const { return member(name).size; }

std::shared_ptr<const std::vector<std::byte>> ZipMembers::read(const std::string& name) const {
  const Member& wanted = member(name);
  const auto data = std::make_shared<std::vector<std::byte>>(static_cast<std::size_t>(wanted.size));
  const std::unique_ptr<zip_file_t, int (*)(zip_file_t*)> file(
      zip_fopen_index(archive_->zip, wanted.index, 0), &zip_fclose);
  const auto damaged = [&](const std::string& why) {
    throw Error(ErrorCode::bad_file,
                fmt::format("{}: the zip member {} is damaged: {}", source_, printable(name), why));
  };
  if (!file) damaged(zip_strerror(archive_->zip));
  std::size_t at = 0;
  while (at < data->size()) {
    const zip_int64_t got = zip_fread(file.get(), data->data() + at, data->size() - at);
    if (got < 0) damaged(zip_file_strerror(file.get()));
    if (got == 0) damaged(fmt::format("{} bytes of {}", at, data->size()));
    at += static_cast<std::size_t>(got);
  }
  std::byte more;  // reading on to the end is what compares the checksum
  const zip_int64_t end = zip_fread(file.get(), &more, 1);
  if (end < 0) damaged(zip_file_strerror(file.get()));
  if (end > 0) damaged("more bytes than it claims");
  return data;
}

}  // namespace frcnn
