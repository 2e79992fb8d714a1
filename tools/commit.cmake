# Writes OUTPUT, a header with the commit that the sources in SOURCE are at, when that differs from what it holds:
# cmake -DSOURCE=... -DOUTPUT=... -P commit.cmake
execute_process(COMMAND git describe --always --dirty --abbrev=12 --exclude=*
  WORKING_DIRECTORY ${SOURCE} OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT commit)
  set(commit unknown)
endif()
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT "#pragma once\n#define FRCNN_COMMIT \"${commit}\"\n")
