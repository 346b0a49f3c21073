# FOCUS_GIT_HASH: short commit hash, "+dirty" when the tree differs from it, "unknown" outside a git checkout.
find_package(Git QUIET)
set(FOCUS_GIT_HASH "unknown")
if(Git_FOUND AND EXISTS "${CMAKE_SOURCE_DIR}/.git")
  execute_process(COMMAND "${GIT_EXECUTABLE}" -C "${CMAKE_SOURCE_DIR}" describe --always --dirty=+dirty --abbrev=12
                  OUTPUT_VARIABLE FOCUS_GIT_HASH OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  if(failed)
    set(FOCUS_GIT_HASH "unknown")
  endif()
endif()
