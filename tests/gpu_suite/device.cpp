// The suite's only device is a GPU: it must link without oneDNN, hence without the CPU device.
#include "runtime/device.h"

#include <charconv>

#include "frcnn/error.h"

namespace frcnn {

std::shared_ptr<Device> make_device(const std::string& name, Precision precision, int, std::string*,
                                    const GpuOptions& gpu) {
  const std::string prefix = "cuda:";
  int index = 0;
  const char* const end = name.data() + name.size();
  if (name.rfind(prefix, 0) == 0 && std::from_chars(name.data() + prefix.size(), end, index).ptr == end)
    return make_cuda_device(index, precision, gpu);
  throw Error(ErrorCode::unsupported, "device " + name + ": this program knows cuda:N only");
}

}  // namespace frcnn
