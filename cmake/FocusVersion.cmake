# The git hash, taken at every build: the short commit hash, "+dirty" when tracked files differ from it, "unknown" outside a git checkout.
# Included, it defines focus_git_hash(TARGET): the target's sources may include "git_hash.h", which defines FOCUS_GIT_HASH. As a script
# (cmake -DSOURCE=FOLDER -DOUTPUT=FILE -P cmake/FocusVersion.cmake) it writes that file, but only when it changes, so that nothing is
# built again for an unchanged hash.
if(CMAKE_SCRIPT_MODE_FILE STREQUAL CMAKE_CURRENT_LIST_FILE)
  cmake_minimum_required(VERSION 3.24)
  find_package(Git QUIET)
  set(hash "")
  if(Git_FOUND AND EXISTS "${SOURCE}/.git")
    execute_process(COMMAND "${GIT_EXECUTABLE}" --no-optional-locks -C "${SOURCE}" describe --always --exclude=* --dirty=+dirty --abbrev=12
                    OUTPUT_VARIABLE hash OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
  if(hash STREQUAL "")
    set(hash unknown)
  endif()
  file(CONFIGURE OUTPUT "${OUTPUT}" CONTENT "#define FOCUS_GIT_HASH \"@hash@\"\n" @ONLY)
  return()
endif()

function(focus_git_hash target)
  set(folder "${CMAKE_CURRENT_BINARY_DIR}/generated")
  add_custom_target(focus_git_hash
    COMMAND "${CMAKE_COMMAND}" "-DSOURCE=${CMAKE_SOURCE_DIR}" "-DOUTPUT=${folder}/git_hash.h" -P "${CMAKE_SOURCE_DIR}/cmake/FocusVersion.cmake"
    BYPRODUCTS "${folder}/git_hash.h"
    COMMENT "Git hash"
    VERBATIM)
  add_dependencies(${target} focus_git_hash)
  target_include_directories(${target} PRIVATE "${folder}")
endfunction()
