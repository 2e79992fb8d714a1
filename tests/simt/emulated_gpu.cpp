// A GPU for a whole program, on the emulator: shows what the kernels' arithmetic does to results (tools/accuracy_ledger), nothing
// about time. There from before main() until after it, as a machine's GPU is.
#include "tests/simt/fake_runtime.h"

namespace {

frcnn::simt::FakeMachine::Properties properties() {
  frcnn::simt::FakeMachine::Properties machine;
  machine.multiprocessors = 132;  // an H200's, so that the same tiles and splits are chosen
  machine.memory_bytes = std::size_t{8} << 30;
  return machine;
}

const frcnn::simt::FakeMachine machine(properties());

}  // namespace
