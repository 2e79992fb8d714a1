#include "model_io/convert/pickle.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "frcnn/error.h"
#include "model_io/convert/pickle_globals.h"
#include "model_io/safetensors.h"

namespace frcnn {
namespace {

using Value = PickleValue;
using Kind = PickleValue::Kind;

// Far above what checkpoints hold; each bounds the memory that a byte of a hostile file can claim.
constexpr std::size_t max_bytes = 16u << 20;
constexpr std::size_t max_stack = 1u << 20, max_memo = 1u << 20, max_containers = 1u << 19;
constexpr std::size_t max_elements = 2u << 20;  // in all containers together
constexpr std::size_t max_tensors = 1u << 17;
constexpr std::size_t max_marks = 256;        // open at the same time, so also how deep tuples nest
constexpr std::size_t max_storage_key = 255;  // keys are sorted: long ones with equal beginnings take time

class Machine {
 public:
  Machine(std::span<const std::byte> bytes, const std::string& where, std::size_t base)
      : bytes_(bytes), where_(where), base_(base) {
    out_.text_begin = reinterpret_cast<const char*>(bytes.data());
  }

  Pickle run() {
    if (bytes_.size() > max_bytes) bytes_ = bytes_.first(max_bytes);  // STOP must come before that
    while (step()) {
    }
    out_.root = pop();
    if (!stack_.empty() || !marks_.empty()) fail("values are left over at the end");
    out_.bytes = at_;
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(const std::string& what, ErrorCode code = ErrorCode::bad_file) const {
    throw Error(code, fmt::format("{}: byte {}: {}", where_, base_ + instruction_, what));
  }
  [[noreturn]] void refuse(const std::string& what) const { fail(what, ErrorCode::unsupported); }

  // ---- bytes ----

  std::span<const std::byte> take(std::uint64_t count) {
    if (count > bytes_.size() - at_)
      fail(fmt::format("the pickle ends within an instruction that needs {} bytes", count));
    const auto part = bytes_.subspan(at_, static_cast<std::size_t>(count));
    at_ += part.size();
    return part;
  }
  std::uint64_t little(std::size_t count) {
    std::uint64_t value = 0;
    const auto part = take(count);
    for (std::size_t i = count; i-- > 0;) value = value << 8 | static_cast<std::uint64_t>(part[i]);
    return value;
  }
  std::string_view line() {
    const char* const begin = out_.text_begin + at_;
    const auto* const end = static_cast<const char*>(std::memchr(begin, '\n', bytes_.size() - at_));
    if (!end) fail("a name without an end");
    at_ += static_cast<std::size_t>(end - begin) + 1;
    return {begin, static_cast<std::size_t>(end - begin)};
  }

  // ---- stack ----

  // What an instruction may take: the values above the last mark.
  std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  void push(const Value& value) {
    if (stack_.size() == max_stack) fail(fmt::format("more than {} values on the stack", max_stack));
    stack_.push_back(value);
  }
  Value pop() {
    if (stack_.size() <= floor()) fail("takes a value from an empty stack");
    const Value value = stack_.back();
    stack_.pop_back();
    return value;
  }
  Value& top() {
    if (stack_.size() <= floor()) fail("looks at an empty stack");
    return stack_.back();
  }
  void mark() {
    if (marks_.size() == max_marks) fail(fmt::format("nested more than {} deep", max_marks));
    marks_.push_back(stack_.size());
  }
  std::vector<Value> pop_mark() {
    if (marks_.empty()) fail("no mark on the stack");
    const auto from = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<Value> values(from, stack_.end());
    stack_.erase(from, stack_.end());
    marks_.pop_back();
    return values;
  }

  // ---- values ----

  void count_elements(std::size_t more) {
    elements_ += more;
    if (elements_ > max_elements) fail(fmt::format("more than {} elements in containers", max_elements));
  }
  Value container(Kind kind, std::vector<Value> items) {
    if (out_.containers.size() == max_containers)
      fail(fmt::format("more than {} containers", max_containers));
    if (kind == Kind::dict && items.size() % 2 != 0) fail("a key without a value");
    count_elements(items.size());
    out_.containers.push_back(std::move(items));
    return {kind, static_cast<std::uint32_t>(out_.containers.size() - 1), 0};
  }
  void extend(const Value& target, Kind kind, std::span<const Value> items) {
    if (target.kind != kind)
      fail(fmt::format("adds to what is no {}", kind == Kind::dict ? "dictionary" : "list"));
    if (kind == Kind::dict && items.size() % 2 != 0) fail("a key without a value");
    count_elements(items.size());
    auto& into = out_.containers[target.index];
    into.insert(into.end(), items.begin(), items.end());
  }
  void tuple(std::size_t count) {
    std::vector<Value> items(count);
    for (std::size_t i = count; i-- > 0;) items[i] = pop();
    push(container(Kind::tuple, std::move(items)));
  }
  void text(std::uint64_t bytes) {
    const std::size_t begin = at_;
    take(bytes);
    push({Kind::text, static_cast<std::uint32_t>(begin), static_cast<std::int64_t>(bytes)});
  }
  void integer(std::int64_t value) { push({Kind::integer, 0, value}); }

  // Python's integers have any length; what needs more than eight bytes is no size of anything.
  void long_integer(std::uint64_t bytes) {
    const auto part = take(bytes);
    if (bytes > 8)
      return push({Kind::opaque, static_cast<std::uint32_t>(at_ - bytes), static_cast<std::int64_t>(bytes)});
    std::uint64_t value =
        !part.empty() && static_cast<std::uint8_t>(part.back()) >= 0x80 ? ~std::uint64_t{0} : 0;
    for (std::size_t i = part.size(); i-- > 0;) value = value << 8 | static_cast<std::uint64_t>(part[i]);
    integer(static_cast<std::int64_t>(value));
  }
  void real() {
    std::uint64_t bits = 0;
    for (const std::byte b : take(8)) bits = bits << 8 | static_cast<std::uint64_t>(b);  // big-endian
    push({Kind::real, 0, static_cast<std::int64_t>(bits)});
  }

  // ---- memo ----

  void put(std::uint64_t index) {
    if (index >= max_memo) fail(fmt::format("memo index {}, at most {} are allowed", index, max_memo));
    if (memo_.size() <= index) memo_.resize(static_cast<std::size_t>(index) + 1);
    memo_[static_cast<std::size_t>(index)] = top();
    memo_used_ = std::max(memo_used_, index + 1);
  }
  void get(std::uint64_t index) {
    if (index >= memo_.size() || !memo_[static_cast<std::size_t>(index)])
      fail(fmt::format("memo {} was never put", index));
    push(*memo_[static_cast<std::size_t>(index)]);
  }

  // ---- names and calls ----

  void global(std::string_view module, std::string_view name) {
    const std::optional<TorchGlobal> known = torch_global(module, name);
    if (!known) refuse(refused_global(module, name));
    push({Kind::global, 0, pack(*known)});
  }

  void reduce() {
    const Value arguments = pop(), callee = pop();
    if (callee.kind != Kind::global || arguments.kind != Kind::tuple) fail("calls what is no known name");
    const std::vector<Value> args = copy_of_arguments(arguments);
    const TorchGlobal global = unpack(callee.number);
    switch (global.kind) {
      case TorchGlobal::Kind::ordered_dict:
        return push(ordered_dict(args));
      case TorchGlobal::Kind::rebuild_tensor:
      case TorchGlobal::Kind::rebuild_tensor_v2:
      case TorchGlobal::Kind::rebuild_tensor_v3:
        return push(tensor(global.kind, args));
      case TorchGlobal::Kind::rebuild_parameter:
        if (args.size() != 3 || args[0].kind != Kind::tensor) fail("_rebuild_parameter of what is no tensor");
        return push(args[0]);
      case TorchGlobal::Kind::size:
        if (args.size() != 1 || (args[0].kind != Kind::tuple && args[0].kind != Kind::list))
          fail("torch.Size of what is no tuple");
        return push({Kind::tuple, args[0].index, 0});
      case TorchGlobal::Kind::device:
        return push({Kind::opaque, 0, 0});
      case TorchGlobal::Kind::storage:
      case TorchGlobal::Kind::dtype:
        break;
    }
    refuse("calls a type, which only names one in checkpoints");
  }

  // No call has more than eight arguments.
  std::vector<Value> copy_of_arguments(const Value& arguments) const {
    const auto& items = out_.containers[arguments.index];
    if (items.size() > 8) fail(fmt::format("a call with {} arguments", items.size()));
    return items;
  }

  // Empty, or filled from a list of pairs as Python 2 wrote it.
  Value ordered_dict(const std::vector<Value>& args) {
    std::vector<Value> items;
    if (args.size() > 1) fail(fmt::format("OrderedDict with {} arguments", args.size()));
    if (args.size() == 1) {
      if (args[0].kind != Kind::list && args[0].kind != Kind::tuple) fail("OrderedDict of what is no list");
      const std::size_t pairs = out_.containers[args[0].index].size();
      count_elements(pairs);  // the same list may be given again and again
      for (const Value& pair : out_.containers[args[0].index]) {
        if ((pair.kind != Kind::list && pair.kind != Kind::tuple) || out_.containers[pair.index].size() != 2)
          fail("OrderedDict of what are no pairs");
        items.insert(items.end(), out_.containers[pair.index].begin(), out_.containers[pair.index].end());
      }
    }
    return container(Kind::dict, std::move(items));
  }

  std::int64_t whole(const Value& value, const char* what) const {
    if (value.kind != Kind::integer) fail(fmt::format("{} is no whole number", what));
    if (value.number < 0) fail(fmt::format("{} {} is negative", what, value.number));
    return value.number;
  }

  // ('storage', type, key, location, elements), in files of the older form also a view: None or (key, offset,
  // elements).
  void persistent_id() {
    const Value id = pop();
    if (id.kind != Kind::tuple) fail("a persistent id that is no tuple");
    const std::vector<Value>& parts = out_.containers[id.index];
    if (parts.empty() || parts[0].kind != Kind::text || out_.text(parts[0]) != "storage")
      refuse(
          "a persistent id of something that is no storage (a whole module? save its state_dict() instead)");
    if (parts.size() < 5 || parts.size() > 6) fail(fmt::format("a storage's id with {} parts", parts.size()));
    if (parts[1].kind != Kind::global || unpack(parts[1].number).kind != TorchGlobal::Kind::storage)
      fail("a storage's id without a storage type");
    if (parts[2].kind != Kind::text) fail("a storage's key is no text");
    TorchStorage storage;
    storage.type = unpack(parts[1].number).type;
    storage.key = out_.text(parts[2]);
    if (storage.key.size() > max_storage_key)
      fail(fmt::format("a storage's key of {} bytes, at most {} are allowed", storage.key.size(),
                       max_storage_key));
    storage.elements = whole(parts[4], "a storage's size");
    storage.view_elements = storage.elements;
    if (parts.size() == 6 && parts[5].kind != Kind::none) {
      const bool view = parts[5].kind == Kind::tuple && out_.containers[parts[5].index].size() == 3;
      if (!view) fail("a storage's view is not (key, offset, elements)");
      const auto& range = out_.containers[parts[5].index];
      storage.view_offset = whole(range[1], "a view's offset");
      storage.view_elements = whole(range[2], "a view's size");
      if (storage.view_offset > storage.elements ||
          storage.view_elements > storage.elements - storage.view_offset)
        fail(fmt::format("a view of {} elements from {} in a storage of {}", storage.view_elements,
                         storage.view_offset, storage.elements));
    }
    if (out_.storages.size() == max_tensors) fail(fmt::format("more than {} storages", max_tensors));
    out_.storages.push_back(storage);
    push({Kind::storage, static_cast<std::uint32_t>(out_.storages.size() - 1), 0});
  }

  // (storage, offset, size, stride), v2 with (requires_grad, hooks), v3 also with (dtype, metadata).
  Value tensor(TorchGlobal::Kind form, const std::vector<Value>& args) {
    const bool v3 = form == TorchGlobal::Kind::rebuild_tensor_v3;
    const bool fits = form == TorchGlobal::Kind::rebuild_tensor ? args.size() == 4
                      : v3                                      ? args.size() == 7 || args.size() == 8
                                                                : args.size() == 6 || args.size() == 7;
    if (!fits) fail(fmt::format("a tensor with {} arguments", args.size()));
    if (args[0].kind != Kind::storage) fail("a tensor without a storage");
    TorchTensor tensor;
    tensor.storage = args[0].index;
    const TorchStorage& storage = out_.storages[tensor.storage];
    tensor.type = storage.type == TorchType::untyped ? TorchType::u8 : storage.type;
    if (v3) {
      if (args[6].kind != Kind::global || unpack(args[6].number).kind != TorchGlobal::Kind::dtype)
        fail("a tensor without an element type");
      tensor.type = unpack(args[6].number).type;
      if (storage.type != TorchType::untyped && storage.type != tensor.type)
        refuse("a tensor of another element type than its storage");
    }
    tensor.offset = whole(args[1], "a tensor's offset");
    tensor.rank = dimensions(args[2], tensor.shape, "size");
    if (dimensions(args[3], tensor.stride, "stride") != tensor.rank)
      fail("a tensor's sizes and strides differ in number");
    place(tensor, storage);
    if (out_.tensors.size() == max_tensors) fail(fmt::format("more than {} tensors", max_tensors));
    out_.tensors.push_back(tensor);
    return {Kind::tensor, static_cast<std::uint32_t>(out_.tensors.size() - 1), 0};
  }

  std::size_t dimensions(const Value& value, std::array<std::int64_t, TorchTensor::max_rank>& into,
                         const char* what) const {
    if (value.kind != Kind::tuple && value.kind != Kind::list)
      fail(fmt::format("a tensor's {}s are no tuple", what));
    const auto& items = out_.containers[value.index];
    if (items.size() > into.size())
      fail(fmt::format("a tensor of rank {}, at most {} is supported", items.size(), into.size()));
    for (std::size_t i = 0; i < items.size(); ++i) into[i] = whole(items[i], what);
    return items.size();
  }

  // Every element of the tensor lies in its storage, and offset becomes one of the whole stored array.
  void place(TorchTensor& tensor, const TorchStorage& storage) const {
    const auto overflow = [&] { fail("a tensor's sizes or strides overflow"); };
    // An untyped storage counts bytes.
    const std::int64_t unit =
        storage.type == TorchType::untyped ? static_cast<std::int64_t>(size_of(tensor.type)) : 1;
    const std::int64_t available = storage.view_elements / unit;
    std::int64_t last = tensor.offset;
    tensor.elements = 1;
    for (std::size_t d = 0; d < tensor.rank; ++d)
      if (__builtin_mul_overflow(tensor.elements, tensor.shape[d], &tensor.elements)) overflow();
    for (std::size_t d = 0; d < tensor.rank && tensor.elements > 0; ++d) {
      std::int64_t reach = 0;
      if (__builtin_mul_overflow(tensor.shape[d] - 1, tensor.stride[d], &reach) ||
          __builtin_add_overflow(last, reach, &last))
        overflow();
    }
    if (tensor.elements > 0 && last >= available)
      fail(fmt::format("a tensor whose last element is number {} of a storage of {}", last, available));
    if (tensor.elements == 0) tensor.offset = 0;
    for (std::size_t d = 0; d < tensor.rank; ++d)
      if (tensor.shape[d] <= 1)
        tensor.stride[d] = 0;  // never stepped along; it may be any number in the file
    if (storage.view_offset % unit != 0) fail("a view that begins within an element");
    tensor.offset += storage.view_offset / unit;
  }

  // ---- the instructions ----

  bool step() {
    instruction_ = at_;
    if (at_ == bytes_.size())
      fail(bytes_.size() == max_bytes ? fmt::format("a pickle of more than {} bytes", max_bytes)
                                      : "the pickle ends without its STOP");
    const auto opcode = static_cast<unsigned char>(bytes_[at_++]);
    switch (opcode) {
      case '.':
        return false;
      case 0x80: {
        const std::uint64_t protocol = little(1);
        if (protocol < 2 || protocol > 5)
          refuse(fmt::format("pickle protocol {}; 2 to 5 are supported", protocol));
        return true;
      }
      case 0x95:  // a frame's length, which only helps readers of streams
        little(8);
        return true;
      case '(':
        mark();
        return true;
      case '0':
        if (stack_.size() > floor())
          stack_.pop_back();
        else
          pop_mark();
        return true;
      case '1':
        pop_mark();
        return true;
      case '2':
        push(Value(top()));
        return true;
      case 'c': {
        const std::string_view module = line(), name = line();
        global(module, name);
        return true;
      }
      case 0x93: {
        const Value name = pop(), module = pop();
        if (name.kind != Kind::text || module.kind != Kind::text) fail("a global whose name is no text");
        global(out_.text(module), out_.text(name));
        return true;
      }
      case 'R':
      case 0x81:  // NEWOBJ: calls a class
        reduce();
        return true;
      case 'Q':
        persistent_id();
        return true;
      case 'b':  // attributes of an OrderedDict, such as a state_dict's _metadata: not needed
        pop();
        if (top().kind != Kind::dict) refuse("sets the attributes of an object that is no dictionary");
        return true;
      default:
        if (!plain_value(opcode) && !container_step(opcode) && !memo_step(opcode))
          refuse(refused_opcode(opcode));
        return true;
    }
  }

  bool plain_value(unsigned char opcode) {
    switch (opcode) {
      case 'N':
        return push({}), true;
      case 0x88:
      case 0x89:
        return push({Kind::boolean, 0, opcode == 0x88}), true;
      case 'J':
        return integer(static_cast<std::int32_t>(little(4))), true;
      case 'K':
        return integer(static_cast<std::int64_t>(little(1))), true;
      case 'M':
        return integer(static_cast<std::int64_t>(little(2))), true;
      case 0x8a:
        return long_integer(little(1)), true;
      case 0x8b:
        return long_integer(little(4)), true;
      case 'G':
        return real(), true;
      case 'U':  // the strings of Python 2, and bytes
      case 'C':
      case 0x8c:
        return text(little(1)), true;
      case 'T':
      case 'B':
      case 'X':
        return text(little(4)), true;
      case 0x8d:
      case 0x8e:
      case 0x96:
        return text(little(8)), true;
      default:
        return false;
    }
  }

  bool container_step(unsigned char opcode) {
    switch (opcode) {
      case ')':
        return tuple(0), true;
      case 0x85:
      case 0x86:
      case 0x87:
        return tuple(opcode - 0x84u), true;
      case 't':
        return push(container(Kind::tuple, pop_mark())), true;
      case ']':
      case 0x8f:  // sets are kept as lists
        return push(container(Kind::list, {})), true;
      case 'l':
      case 0x91:
        return push(container(Kind::list, pop_mark())), true;
      case '}':
        return push(container(Kind::dict, {})), true;
      case 'd':
        return push(container(Kind::dict, pop_mark())), true;
      case 'a': {
        const Value item = pop();
        return extend(top(), Kind::list, {&item, 1}), true;
      }
      case 'e':
      case 0x90: {
        const std::vector<Value> items = pop_mark();
        return extend(top(), Kind::list, items), true;
      }
      case 's': {
        const Value value = pop(), key = pop();
        const Value pair[]{key, value};
        return extend(top(), Kind::dict, pair), true;
      }
      case 'u': {
        const std::vector<Value> items = pop_mark();
        return extend(top(), Kind::dict, items), true;
      }
      default:
        return false;
    }
  }

  bool memo_step(unsigned char opcode) {
    switch (opcode) {
      case 'q':
        return put(little(1)), true;
      case 'r':
        return put(little(4)), true;
      case 0x94:
        return put(memo_used_), true;
      case 'h':
        return get(little(1)), true;
      case 'j':
        return get(little(4)), true;
      default:
        return false;
    }
  }

  // A global as a value's number.
  static std::int64_t pack(const TorchGlobal& g) {
    return static_cast<std::int64_t>(g.kind) << 8 | static_cast<std::int64_t>(g.type);
  }
  static TorchGlobal unpack(std::int64_t number) {
    return {static_cast<TorchGlobal::Kind>(number >> 8), static_cast<TorchType>(number & 0xff)};
  }

  std::span<const std::byte> bytes_;
  const std::string& where_;
  const std::size_t base_;
  std::size_t at_ = 0, instruction_ = 0;
  std::vector<Value> stack_;
  std::vector<std::size_t> marks_;
  std::vector<std::optional<Value>> memo_;
  std::uint64_t memo_used_ = 0;  // MEMOIZE counts on from here
  std::size_t elements_ = 0;
  Pickle out_;
};

}  // namespace

Pickle read_pickle(std::span<const std::byte> bytes, const std::string& where, std::size_t base) {
  return Machine(bytes, where, base).run();
}

}  // namespace frcnn
