// A machine with a GPU for the command `frcnn` over the emulator, from before main() until after it.
#include "tests/simt/fake_runtime.h"

namespace {

frcnn::simt::FakeMachine machine;

}  // namespace
