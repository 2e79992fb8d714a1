# Without a CUDA toolkit an AUTO build does without, and an ON build is refused; other words are too. The toolkit that this
# machine may have is hidden.
function(configure cuda result_variable output_variable)
  file(REMOVE_RECURSE ${WORK})
  execute_process(COMMAND ${CMAKE_COMMAND} -G Ninja -S ${SOURCE} -B ${WORK} -DCMAKE_CXX_COMPILER=${COMPILER} -DFRCNN_CUDA=${cuda}
    -DCMAKE_DISABLE_FIND_PACKAGE_CUDAToolkit=ON RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  file(REMOVE_RECURSE ${WORK})
  set(${result_variable} ${result} PARENT_SCOPE)
  set(${output_variable} "${output}" PARENT_SCOPE)
endfunction()

configure(AUTO result output)
if(NOT result EQUAL 0 OR NOT output MATCHES "so no CUDA device in this build")
  message(FATAL_ERROR "FRCNN_CUDA=AUTO without a toolkit: ${output}")
endif()
configure(ON result output)
if(result EQUAL 0 OR NOT output MATCHES "FRCNN_CUDA=ON: ")
  message(FATAL_ERROR "FRCNN_CUDA=ON without a toolkit: ${output}")
endif()
configure(MAYBE result output)
if(result EQUAL 0 OR NOT output MATCHES "expected AUTO, ON or OFF")
  message(FATAL_ERROR "FRCNN_CUDA=MAYBE: ${output}")
endif()
