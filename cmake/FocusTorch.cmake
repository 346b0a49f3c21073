# Imported target focus::torch. LibTorch is looked for in this order:
#   1. FOCUS_TORCH_DIR (CMake or environment): a LibTorch folder, or a python package's torch folder;
#   2. <source>/.venv, where scripts/setup.sh installs the pinned wheel;
#   3. an importable python torch of a supported version.
# The wheel's own TorchConfig.cmake demands a CUDA toolkit even for CPU use, hence an imported target of our own.
set(FOCUS_TORCH_MIN 2.9)
set(FOCUS_TORCH_MAX 2.12)  # exclusive

function(focus_torch_version dir out)
  set(version "")
  if(EXISTS "${dir}/version.py")
    file(STRINGS "${dir}/version.py" line REGEX "^__version__")
    string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" version "${line}")
  elseif(EXISTS "${dir}/build-version")
    file(STRINGS "${dir}/build-version" line LIMIT_COUNT 1)
    string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" version "${line}")
  endif()
  set(${out} "${version}" PARENT_SCOPE)
endfunction()

if(NOT FOCUS_TORCH_DIR AND DEFINED ENV{FOCUS_TORCH_DIR})
  set(FOCUS_TORCH_DIR "$ENV{FOCUS_TORCH_DIR}")
endif()
if(NOT FOCUS_TORCH_DIR)
  file(GLOB candidates "${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch")
  if(candidates)
    list(GET candidates 0 FOCUS_TORCH_DIR)
  endif()
endif()
if(NOT FOCUS_TORCH_DIR)
  find_program(FOCUS_PYTHON NAMES python3 python)
  if(FOCUS_PYTHON)
    execute_process(COMMAND "${FOCUS_PYTHON}" -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
                    OUTPUT_VARIABLE FOCUS_TORCH_DIR OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
endif()
if(NOT FOCUS_TORCH_DIR OR NOT EXISTS "${FOCUS_TORCH_DIR}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "LibTorch not found (looked at '${FOCUS_TORCH_DIR}'). Run scripts/setup.sh, or pass -DFOCUS_TORCH_DIR=<folder with lib/libtorch_cpu.so>.")
endif()
set(FOCUS_TORCH_DIR "${FOCUS_TORCH_DIR}" CACHE PATH "LibTorch folder" FORCE)
focus_torch_version("${FOCUS_TORCH_DIR}" FOCUS_TORCH_VERSION)
if(FOCUS_TORCH_VERSION AND (FOCUS_TORCH_VERSION VERSION_LESS FOCUS_TORCH_MIN OR NOT FOCUS_TORCH_VERSION VERSION_LESS FOCUS_TORCH_MAX))
  message(FATAL_ERROR "LibTorch ${FOCUS_TORCH_VERSION} in '${FOCUS_TORCH_DIR}' is not supported: need >= ${FOCUS_TORCH_MIN} and < ${FOCUS_TORCH_MAX}.")
endif()
message(STATUS "LibTorch ${FOCUS_TORCH_VERSION}: ${FOCUS_TORCH_DIR}")

add_library(focus_torch INTERFACE)
add_library(focus::torch ALIAS focus_torch)
target_include_directories(focus_torch SYSTEM INTERFACE "${FOCUS_TORCH_DIR}/include" "${FOCUS_TORCH_DIR}/include/torch/csrc/api/include")
set(focus_torch_libs "${FOCUS_TORCH_DIR}/lib/libtorch_cpu.so" "${FOCUS_TORCH_DIR}/lib/libc10.so")
if(FOCUS_WITH_CUDA)
  list(APPEND focus_torch_libs "${FOCUS_TORCH_DIR}/lib/libtorch_cuda.so" "${FOCUS_TORCH_DIR}/lib/libc10_cuda.so")
endif()
# The wheel keeps CUDA's run-time libraries, which even its CPU library loads, in sibling folders.
file(GLOB focus_torch_rpaths "${FOCUS_TORCH_DIR}/../nvidia/*/lib")
list(PREPEND focus_torch_rpaths "${FOCUS_TORCH_DIR}/lib")
# --no-as-needed: operators register themselves when the CUDA library loads, though no symbol of it is referenced.
target_link_libraries(focus_torch INTERFACE -Wl,--no-as-needed ${focus_torch_libs} -Wl,--as-needed)
target_link_options(focus_torch INTERFACE -Wl,--allow-shlib-undefined)
list(APPEND CMAKE_BUILD_RPATH ${focus_torch_rpaths})
