# Warnings, sanitizers and the compiler cache, for every target that focus itself owns.
add_library(focus_warnings INTERFACE)
target_compile_options(focus_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wundef -Wnon-virtual-dtor -Woverloaded-virtual -Wno-missing-field-initializers>)
if(FOCUS_SANITIZE)
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${FOCUS_SANITIZE}> $<$<COMPILE_LANGUAGE:CXX>:-fno-omit-frame-pointer>)
  add_link_options(-fsanitize=${FOCUS_SANITIZE})
endif()
find_program(FOCUS_CCACHE ccache)
if(FOCUS_CCACHE)
  # The sloppiness is what lets ccache work together with a precompiled header.
  set(CMAKE_CXX_COMPILER_LAUNCHER env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime "${FOCUS_CCACHE}")
endif()
