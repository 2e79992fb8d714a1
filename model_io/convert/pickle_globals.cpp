#include "model_io/convert/pickle_globals.h"

#include <fmt/format.h>

#include "model_io/safetensors.h"

namespace frcnn {
namespace {

using Kind = TorchGlobal::Kind;

struct NamedGlobal {
  std::string_view module, name;
  TorchGlobal global;
};

constexpr NamedGlobal globals[]{
    {"collections", "OrderedDict", {Kind::ordered_dict}},
    {"torch._utils", "_rebuild_tensor", {Kind::rebuild_tensor}},
    {"torch._utils", "_rebuild_tensor_v2", {Kind::rebuild_tensor_v2}},
    {"torch._utils", "_rebuild_tensor_v3", {Kind::rebuild_tensor_v3}},
    {"torch._utils", "_rebuild_parameter", {Kind::rebuild_parameter}},
    {"torch", "Size", {Kind::size}},
    {"torch", "device", {Kind::device}},
};

struct NamedType {
  std::string_view storage, dtype;
  TorchType type;
};

constexpr NamedType types[]{
    {"FloatStorage", "float32", TorchType::f32},      {"HalfStorage", "float16", TorchType::f16},
    {"BFloat16Storage", "bfloat16", TorchType::bf16}, {"DoubleStorage", "float64", TorchType::f64},
    {"LongStorage", "int64", TorchType::i64},         {"IntStorage", "int32", TorchType::i32},
    {"ShortStorage", "int16", TorchType::i16},        {"CharStorage", "int8", TorchType::i8},
    {"ByteStorage", "uint8", TorchType::u8},          {"BoolStorage", "bool", TorchType::boolean},
    {"UntypedStorage", "", TorchType::untyped},       {"_UntypedStorage", "", TorchType::untyped},
};

struct NamedOpcode {
  unsigned char code;
  const char* name;
};

// Known instructions that are not on the machine's list.
constexpr NamedOpcode refused[]{
    {'i', "INST, which makes an object"},
    {'o', "OBJ, which makes an object"},
    {0x92, "NEWOBJ_EX, which makes an object"},
    {0x82, "EXT1, which names a class"},
    {0x83, "EXT2, which names a class"},
    {0x84, "EXT4, which names a class"},
    {'P', "PERSID of the text protocol"},
    {'I', "INT of the text protocol"},
    {'L', "LONG of the text protocol"},
    {'F', "FLOAT of the text protocol"},
    {'S', "STRING of the text protocol"},
    {'V', "UNICODE of the text protocol"},
    {'g', "GET of the text protocol"},
    {'p', "PUT of the text protocol"},
    {0x97, "NEXT_BUFFER"},
    {0x98, "READONLY_BUFFER"},
};

}  // namespace

std::size_t size_of(TorchType type) {
  switch (type) {
    case TorchType::f64:
    case TorchType::i64:
      return 8;
    case TorchType::f32:
    case TorchType::i32:
      return 4;
    case TorchType::f16:
    case TorchType::bf16:
    case TorchType::i16:
      return 2;
    default:
      return 1;
  }
}

const char* name_of(TorchType type) {
  for (const NamedType& named : types)
    if (named.type == type) return named.dtype.empty() ? "untyped" : named.dtype.data();
  return "unknown";
}

std::optional<TorchGlobal> torch_global(std::string_view module, std::string_view name) {
  for (const NamedGlobal& known : globals)
    if (known.module == module && known.name == name) return known.global;
  for (const NamedType& known : types) {
    if (name == known.storage && (module == "torch" || module == "torch.cuda" || module == "torch.storage"))
      return TorchGlobal{Kind::storage, known.type};
    if (!known.dtype.empty() && name == known.dtype && module == "torch")
      return TorchGlobal{Kind::dtype, known.type};
  }
  return std::nullopt;
}

std::string refused_global(std::string_view module, std::string_view name) {
  std::string text =
      fmt::format("names {}, which no file of weights needs; nothing of it was imported or called",
                  printable(std::string(module) + "." + std::string(name)));
  if (module.starts_with("torch.nn") || module.starts_with("torchvision.models") ||
      module.starts_with("model.") || module == "__main__")
    text += ". If this is a whole module, save its state_dict() instead";
  if (module.starts_with("numpy"))
    text += ". Keep NumPy's values out of the checkpoint, or save its state_dict() alone";
  return text;
}

std::string refused_opcode(unsigned char opcode) {
  for (const NamedOpcode& known : refused)
    if (known.code == opcode) return fmt::format("the instruction {} is not supported", known.name);
  return fmt::format("0x{:02x} is no instruction of a pickle", opcode);
}

}  // namespace frcnn
