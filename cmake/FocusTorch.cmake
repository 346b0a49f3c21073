# Imported target focus_torch for the LibTorch that FocusTorchFind.cmake chooses; the installed package includes this file too.
# The wheel's own TorchConfig.cmake demands a CUDA toolkit even for CPU use, hence a target of our own.
include("${CMAKE_CURRENT_LIST_DIR}/FocusTorchFind.cmake")
message(STATUS "LibTorch ${FOCUS_TORCH_VERSION}: ${FOCUS_TORCH_DIR}")

add_library(focus_torch INTERFACE IMPORTED GLOBAL)
target_include_directories(focus_torch SYSTEM INTERFACE "${FOCUS_TORCH_DIR}/include" "${FOCUS_TORCH_DIR}/include/torch/csrc/api/include")
set(focus_torch_libs "${FOCUS_TORCH_DIR}/lib/libtorch_cpu.so" "${FOCUS_TORCH_DIR}/lib/libc10.so")
set(focus_torch_cuda_libs "${FOCUS_TORCH_DIR}/lib/libtorch_cuda.so" "${FOCUS_TORCH_DIR}/lib/libc10_cuda.so")
if(FOCUS_WITH_CUDA)
  list(APPEND focus_torch_libs ${focus_torch_cuda_libs})
endif()
# The wheel keeps CUDA's run-time libraries, which even its CPU library loads, in sibling folders.
file(GLOB focus_torch_rpaths "${FOCUS_TORCH_DIR}/../nvidia/*/lib")
list(PREPEND focus_torch_rpaths "${FOCUS_TORCH_DIR}/lib")
# --no-as-needed: operators register themselves when the CUDA library loads, though no symbol of it is referenced.
target_link_libraries(focus_torch INTERFACE -Wl,--no-as-needed ${focus_torch_libs} -Wl,--as-needed)
target_link_options(focus_torch INTERFACE -Wl,--allow-shlib-undefined)
list(APPEND CMAKE_BUILD_RPATH ${focus_torch_rpaths})
list(APPEND CMAKE_INSTALL_RPATH ${focus_torch_rpaths})
# at::parallel_for is a header template: without OpenMP it compiles to a plain loop on one thread. LibTorch brings the run time that it
# was built with, and a second one in the same process would have a pool of threads of its own.
file(GLOB focus_torch_openmp "${FOCUS_TORCH_DIR}/lib/libgomp*.so*")
if(focus_torch_openmp)
  list(GET focus_torch_openmp 0 focus_torch_openmp)
  target_link_libraries(focus_torch INTERFACE "${focus_torch_openmp}")
else()
  find_package(OpenMP REQUIRED COMPONENTS CXX)
  target_link_libraries(focus_torch INTERFACE ${OpenMP_CXX_LIBRARIES})
endif()
target_compile_options(focus_torch INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
