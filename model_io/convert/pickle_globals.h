// The names that a checkpoint's pickle may mention, all of them.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "model_io/convert/pickle.h"

namespace frcnn {

struct TorchGlobal {
  enum class Kind : std::uint8_t {
    ordered_dict,
    rebuild_tensor,
    rebuild_tensor_v2,
    rebuild_tensor_v3,
    rebuild_parameter,
    size,
    device,
    storage,
    dtype
  };
  Kind kind;
  TorchType type = TorchType::f32;  // of storage and dtype
};

// Nothing for a name that is not on the list.
std::optional<TorchGlobal> torch_global(std::string_view module, std::string_view name);

// Why a name or an instruction is refused, and what to do instead where that is known.
std::string refused_global(std::string_view module, std::string_view name);
std::string refused_opcode(unsigned char opcode);

}  // namespace frcnn
