// Where the suite's references lie: in the folder $FRCNN_SUITE_REFERENCES, which gpu_suite_record writes.
#pragma once

#include <string>
#include <vector>

namespace frcnn::simt_test {

// Throws Error(io) when the variable is not set or the file is not there.
std::string reference_path(const std::string& name);
// One folder for each detector, by name; at least one.
std::vector<std::string> detector_folders();

}  // namespace frcnn::simt_test
