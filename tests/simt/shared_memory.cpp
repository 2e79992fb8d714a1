// Dynamic shared memory and the asynchronous copies into it.
#include <cstdint>
#include <cstring>
#include <new>
#include <string>

#include "tests/simt/block.h"

namespace frcnn::simt {
namespace {

constexpr unsigned char kUnwritten = 0xff;  // a NaN in every floating-point format, -1 in integers
constexpr std::size_t kGap = 64;            // between two carved pieces
constexpr std::size_t kSlack = 32 * 1024;   // room for the gaps
constexpr std::align_val_t kArenaAlignment{128};

std::size_t round_up(std::size_t value, std::size_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

std::size_t first_written(const unsigned char* memory, std::size_t begin, std::size_t end) {
  while (begin < end && memory[begin] == kUnwritten) ++begin;
  return begin;
}

}  // namespace

SharedArena::~SharedArena() {
  if (!memory_) return;
  unpoison(memory_, capacity_);
  ::operator delete(memory_, kArenaAlignment);
}

void SharedArena::start(std::size_t bytes) {
  pieces_.clear();
  bytes_ = bytes;
  if (bytes == 0) return;
  if (!memory_) {
    capacity_ = bytes + kSlack;
    memory_ = static_cast<unsigned char*>(::operator new(capacity_, kArenaAlignment));
  }
  unpoison(memory_, capacity_);
  std::memset(memory_, kUnwritten, capacity_);
  poison(memory_, capacity_);
}

void* SharedArena::carve(std::size_t& launch_offset, std::size_t& offset, std::size_t bytes,
                         std::size_t alignment) {
  if (alignment == 0 || alignment > 128 || (alignment & (alignment - 1)) != 0) {
    fail("shared memory is carved with an alignment of " + std::to_string(alignment) +
         ", not a power of two up to 128");
  }
  launch_offset = round_up(launch_offset, alignment) + bytes;
  if (launch_offset > bytes_) {
    fail("carves " + std::to_string(launch_offset) + " bytes of shared memory, launched with " +
         std::to_string(bytes_));
  }
  // A gap before every piece, as long as what may still come fits behind it.
  const std::size_t gapped = round_up(offset + kGap, alignment < 16 ? 16 : alignment);
  const std::size_t later = bytes_ - launch_offset;
  const std::size_t begin = gapped + bytes + later + 1024 <= capacity_ ? gapped : round_up(offset, alignment);
  const Piece piece{begin, begin + bytes};
  if (piece.end > capacity_) fail("carves shared memory into too many pieces for the emulator");
  offset = piece.end;
  bool known = false;
  for (const Piece& other : pieces_) known = known || (other.begin == piece.begin && other.end == piece.end);
  if (!known) {
    pieces_.push_back(piece);
    unpoison(memory_ + piece.begin, bytes);
  }
  return memory_ + piece.begin;
}

std::string SharedArena::finish() {
  std::string overrun;
  if (bytes_ == 0) return overrun;
  unpoison(memory_, capacity_);
  std::size_t at = 0;
  while (at < capacity_ && overrun.empty()) {
    // The nearest piece that begins at or after `at`, or one that covers it.
    std::size_t begin = capacity_, end = capacity_;
    for (const Piece& piece : pieces_) {
      if (piece.end > at && piece.begin < begin) begin = piece.begin, end = piece.end;
    }
    const std::size_t written = first_written(memory_, at, begin);
    if (written < begin) {
      overrun = "shared memory was written outside of what was carved: ";
      std::size_t before = 0;
      const Piece* last = nullptr;
      for (const Piece& piece : pieces_) {
        if (piece.end <= written && piece.end >= before) before = piece.end, last = &piece;
      }
      overrun += last ? std::to_string(written - before) + " bytes past the end of a piece of " +
                            std::to_string(last->end - last->begin) + " bytes"
                      : "before the first piece";
    }
    at = end;
  }
  poison(memory_, capacity_);
  return overrun;
}

void AsyncCopies::issue(void* shared, const void* global, int bytes, int source_bytes) {
  const auto refuse = [&](const std::string& why) {
    fail("cp.async of " + std::to_string(bytes) + " bytes: " + why);
  };
  const auto aligned = [&](const void* p) {
    return reinterpret_cast<std::uintptr_t>(p) % static_cast<unsigned>(bytes) == 0;
  };
  if (source_bytes < 0 || source_bytes > bytes) refuse("source size " + std::to_string(source_bytes));
  if (!aligned(shared)) refuse("destination is not aligned");
  if (!aligned(global)) refuse("source is not aligned");
  // Both sides are touched here too, so that a bad address is reported at the line that gave it.
  unsigned char read[16];
  std::memcpy(read, global, static_cast<std::size_t>(source_bytes));
  std::memset(shared, kUnwritten, static_cast<std::size_t>(bytes));
  copies_.push_back({shared, global, bytes, source_bytes});
}

void AsyncCopies::commit() { group_end_.push_back(copies_.size()); }

void AsyncCopies::wait(int groups_in_flight) {
  const std::size_t keep = groups_in_flight < 0 ? 0 : static_cast<std::size_t>(groups_in_flight);
  const std::size_t groups = group_end_.size() > keep ? group_end_.size() - keep : 0;
  const std::size_t end = groups_in_flight < 0 ? copies_.size() : (groups ? group_end_[groups - 1] : 0);
  for (std::size_t i = 0; i < end; ++i) {
    const Copy& copy = copies_[i];
    const auto source_bytes = static_cast<std::size_t>(copy.source_bytes);
    std::memcpy(copy.shared, copy.global, source_bytes);
    std::memset(static_cast<char*>(copy.shared) + source_bytes, 0,
                static_cast<std::size_t>(copy.bytes) - source_bytes);
  }
  copies_.erase(copies_.begin(), copies_.begin() + static_cast<std::ptrdiff_t>(end));
  group_end_.erase(group_end_.begin(), group_end_.begin() + static_cast<std::ptrdiff_t>(groups));
  for (std::size_t& group : group_end_) group -= end;
}

void AsyncCopies::clear() {
  copies_.clear();
  group_end_.clear();
}

}  // namespace frcnn::simt
