// The machine a program runs on, as text for people and records.
#pragma once

#include <string>

namespace frcnn {

std::string processor_name();              // as the system calls it; "unknown"
int usable_cores();                        // of this process
std::string instruction_sets();            // those that matter here
std::string dnnl_isa();                    // what oneDNN makes of them
std::string dnnl_library();                // "2.6.3"
std::string memory_text(const char* key);  // of /proc/meminfo: "15.6 GiB"; "unknown"

}  // namespace frcnn
