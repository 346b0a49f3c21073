# The ladder of rooms: which room may use which. Checked when the tree is configured, and by a test:
#   cmake -D FOCUS_LADDER_SOURCE=<source folder> -P cmake/FocusLadder.cmake
# stops with a message where an #include of the tree breaks it.
cmake_minimum_required(VERSION 3.24)

# In build order: a room may use only rooms that stand before it.
set(FOCUS_ROOM_ORDER
  core
  config
  formats
  distributed
  kernels
  ops
  nn
  cache
  model
  weights
  compress
  data
  metrics
  report
  infer
  train
  eval
  cli
  tools)
# Rooms that must not reach torch: they build and are tested in seconds.
set(FOCUS_ROOMS_WITHOUT_TORCH core config formats kernels data metrics report)
# Rooms that must not use each other.
set(FOCUS_SIBLING_ROOMS train eval)

# Stops where `room` must not use `other`; `where` says what uses it.
function(focus_check_use room other where)
  list(FIND FOCUS_ROOM_ORDER "${room}" rank)
  list(FIND FOCUS_ROOM_ORDER "${other}" other_rank)
  if(rank EQUAL -1)
    message(FATAL_ERROR "${where}: room '${room}' is not in FOCUS_ROOM_ORDER (cmake/FocusLadder.cmake).")
  elseif(other_rank EQUAL -1)
    message(FATAL_ERROR "${where}: unknown room '${other}'; the rooms are in cmake/FocusLadder.cmake.")
  elseif(other_rank GREATER rank)
    message(FATAL_ERROR "${where}: room '${room}' uses '${other}', which stands above it in the ladder.")
  elseif(NOT other STREQUAL room AND room IN_LIST FOCUS_SIBLING_ROOMS AND other IN_LIST FOCUS_SIBLING_ROOMS)
    message(FATAL_ERROR "${where}: rooms '${room}' and '${other}' are siblings and must not use each other.")
  elseif(room IN_LIST FOCUS_ROOMS_WITHOUT_TORCH AND NOT other IN_LIST FOCUS_ROOMS_WITHOUT_TORCH)
    message(FATAL_ERROR "${where}: room '${room}' must not reach torch, but '${other}' does.")
  endif()
endfunction()

# Reads every #include of every room below the folder `source`.
function(focus_check_includes source)
  file(GLOB folders LIST_DIRECTORIES true RELATIVE "${source}/src" "${source}/src/*")
  foreach(room IN LISTS folders)
    if(IS_DIRECTORY "${source}/src/${room}")
      focus_check_use("${room}" "${room}" "${source}/src/${room}")
    endif()
  endforeach()
  list(JOIN FOCUS_ROOM_ORDER "|" rooms)
  foreach(room IN LISTS FOCUS_ROOM_ORDER)
    set(folder "${source}/src/${room}")
    if(room STREQUAL kernels)
      set(folder "${source}/kernels")
    endif()
    file(GLOB_RECURSE files "${folder}/*.cpp" "${folder}/*.h" "${folder}/*.cu" "${source}/include/focus/${room}/*.h")
    list(FILTER files EXCLUDE REGEX "/kernels/bench/")  # programs that measure a room stand outside it
    foreach(file IN LISTS files)
      file(STRINGS "${file}" lines REGEX "^ *# *include *[<\"]")
      foreach(line IN LISTS lines)
        if(line MATCHES "[<\"]focus/([a-z_0-9]+)/")
          focus_check_use(${room} ${CMAKE_MATCH_1} "${file}")
        elseif(line MATCHES "\"(${rooms})/")  # a header that is private to its room
          focus_check_use(${room} ${CMAKE_MATCH_1} "${file}")
        elseif(line MATCHES "[<\"](ATen|torch|c10)/" AND room IN_LIST FOCUS_ROOMS_WITHOUT_TORCH)
          message(FATAL_ERROR "${file}: room '${room}' must not reach torch, but it has: ${line}")
        endif()
      endforeach()
    endforeach()
  endforeach()
endfunction()

if(CMAKE_SCRIPT_MODE_FILE STREQUAL CMAKE_CURRENT_LIST_FILE)
  if(NOT EXISTS "${FOCUS_LADDER_SOURCE}/src/core")
    message(FATAL_ERROR "'${FOCUS_LADDER_SOURCE}' has no src/core: pass -D FOCUS_LADDER_SOURCE=<source folder>.")
  endif()
  focus_check_includes("${FOCUS_LADDER_SOURCE}")
endif()
