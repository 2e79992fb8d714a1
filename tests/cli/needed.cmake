# The program starts on machines without CUDA, driver or GPU: it needs none of their libraries.
execute_process(COMMAND readelf -d ${TOOL} RESULT_VARIABLE result OUTPUT_VARIABLE text)
if(NOT result EQUAL 0 OR NOT text MATCHES "NEEDED.*libstdc\\+\\+")
  message(FATAL_ERROR "readelf -d ${TOOL} does not list what the program needs:\n${text}")
endif()
if(text MATCHES "NEEDED[^\n]*\\[(lib(cu|nv)[^]]*)\\]")
  message(FATAL_ERROR "${TOOL} needs ${CMAKE_MATCH_1}")
endif()
