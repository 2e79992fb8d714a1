// In place of what needs oneDNN: programs for a machine with a GPU and little else have no CPU device.
#include "frcnn/error.h"
#include "runtime/device.h"
#include "tools/machine.h"

namespace frcnn {

std::shared_ptr<Device> make_cpu_device(int, Precision) {
  throw Error(ErrorCode::unsupported, "device cpu: this program was built for GPUs only");
}

std::string dnnl_isa() { return "none"; }
std::string dnnl_library() { return "none"; }

}  // namespace frcnn
