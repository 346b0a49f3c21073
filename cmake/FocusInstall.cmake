# `cmake --install`: the programs, the public headers, a static library per room, and the package file through which find_package(focus)
# gives focus::focus (all rooms) and one target per room (focus::infer, ...). The programs' own rooms have no public headers.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)
set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/focus")
add_library(focus INTERFACE)
set(libraries focus)
foreach(room IN LISTS FOCUS_ROOM_ORDER)
  if(TARGET focus_${room} AND NOT room MATCHES "^(cli|tools)$")
    set_target_properties(focus_${room} PROPERTIES EXPORT_NAME ${room})
    target_link_libraries(focus INTERFACE focus_${room})
    list(APPEND libraries focus_${room})
  endif()
endforeach()
if(FOCUS_WITH_CUDA)
  target_link_libraries(focus INTERFACE focus_cuda)
  list(APPEND libraries focus_ops_cuda focus_kernels_cuda focus_cuda)
endif()
target_compile_features(focus_core PUBLIC cxx_std_20)
install(TARGETS ${libraries} EXPORT focus ARCHIVE INCLUDES DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(DIRECTORY "${CMAKE_SOURCE_DIR}/include/focus" "${CMAKE_SOURCE_DIR}/kernels/include/focus" TYPE INCLUDE)
install(EXPORT focus FILE focusTargets.cmake NAMESPACE focus:: DESTINATION "${package_dir}")

configure_package_config_file("${CMAKE_CURRENT_LIST_DIR}/focusConfig.cmake.in" "${CMAKE_BINARY_DIR}/focusConfig.cmake"
  INSTALL_DESTINATION "${package_dir}" NO_SET_AND_CHECK_MACRO NO_CHECK_REQUIRED_COMPONENTS_MACRO)
write_basic_package_version_file("${CMAKE_BINARY_DIR}/focusConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES
  "${CMAKE_BINARY_DIR}/focusConfig.cmake"
  "${CMAKE_BINARY_DIR}/focusConfigVersion.cmake"
  "${CMAKE_CURRENT_LIST_DIR}/FocusTorch.cmake"
  "${CMAKE_CURRENT_LIST_DIR}/FocusTorchFind.cmake"
  DESTINATION "${package_dir}")
