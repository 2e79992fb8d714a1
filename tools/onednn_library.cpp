// What the machine is to oneDNN; apart, since not every program has it.
#include <fmt/format.h>
#include <oneapi/dnnl/dnnl.h>

#include "machine.h"

namespace frcnn {

// What oneDNN sees matters more than what the processor has: a virtual machine may hide instructions.
std::string dnnl_isa() {
  switch (dnnl_get_effective_cpu_isa()) {
    case dnnl_cpu_isa_sse41:
      return "SSE4.1";
    case dnnl_cpu_isa_avx:
      return "AVX";
    case dnnl_cpu_isa_avx2:
      return "AVX2";
    case dnnl_cpu_isa_avx512_core:
      return "AVX-512";
    case dnnl_cpu_isa_avx512_core_vnni:
      return "AVX-512 with VNNI";
    case dnnl_cpu_isa_avx512_core_bf16:
      return "AVX-512 with bf16";
    case dnnl_cpu_isa_avx512_core_amx:
      return "AVX-512 with AMX";
    default:  // newer than these names
      return fmt::format("{:#x}", static_cast<unsigned>(dnnl_get_effective_cpu_isa()));
  }
}

std::string dnnl_library() {
  const dnnl_version_t* version = dnnl_version();
  return fmt::format("{}.{}.{}", version->major, version->minor, version->patch);
}

}  // namespace frcnn
