# FOCUS_LINK_CUDA: the objects of a build for the CPU once more, linked with the CUDA kernels and LibTorch's CUDA libraries, into bin/cuda under names that
# end in -cuda.
# No object is compiled twice, since only kernels/cuda and src/ops/cuda/device.cpp know CUDA. To link needs nvcc and the wheel; to start
# what is linked also needs NVIDIA's run-time libraries. Ranks talk through Gloo, as in the build for the CPU. Target cuda_link.
if(NOT FOCUS_LINK_CUDA OR FOCUS_WITH_CUDA)
  return()
endif()
add_custom_target(cuda_link ALL)
set(linked focus-train focus-infer focus-eval focus-model)
if(FOCUS_BUILD_TESTS)
  list(APPEND linked test_ops test_device)
  set_target_properties(test_kernels_cuda PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_RUNTIME_OUTPUT_DIRECTORY}/cuda")
  add_dependencies(cuda_link test_kernels_cuda)
endif()
foreach(program IN LISTS linked)
  get_target_property(libs ${program} LINK_LIBRARIES)
  list(TRANSFORM libs REPLACE "^focus_test_device$" focus_test_card)
  add_executable(${program}-cuda $<TARGET_OBJECTS:${program}>)
  set_target_properties(${program}-cuda PROPERTIES LINKER_LANGUAGE CXX
    RUNTIME_OUTPUT_DIRECTORY "${CMAKE_RUNTIME_OUTPUT_DIRECTORY}/cuda")
  target_link_libraries(${program}-cuda PRIVATE -Wl,--no-as-needed ${focus_torch_cuda_libs} -Wl,--as-needed focus_cuda ${libs})
  add_dependencies(cuda_link ${program}-cuda)
endforeach()
