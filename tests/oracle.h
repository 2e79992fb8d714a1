// Other programs that tests compare with, each behind a Python script that exits with 77 where its modules
// are missing.
#pragma once

#include <sys/wait.h>

#include <cstdlib>
#include <string>

#include "catch.h"

namespace frcnn::test {

// Runs `arguments` (a script and what it takes, quoted for the shell). False, with a warning, where no Python
// has `what`: then the test should return. The environment variable FRCNN_REQUIRE_ORACLES makes that a
// failure, for runs that have installed the programs. Any other exit status than 0 fails the test.
inline bool ran_oracle(const std::string& arguments, const std::string& what) {
  for (const char* python :
       {"python3", "/usr/bin/python3"}) {  // the first may be one that does not see Debian's modules
    const int status = std::system((std::string(python) + " " + arguments).c_str());
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    if (code == 77 || code == 127) continue;
    REQUIRE(code == 0);
    return true;
  }
  if (std::getenv("FRCNN_REQUIRE_ORACLES"))
    FAIL("no python3 with " << what << " here, and FRCNN_REQUIRE_ORACLES is set");
  WARN("SKIPPED: no python3 with " << what << " here; nothing was compared with it");
  return false;
}

}  // namespace frcnn::test
