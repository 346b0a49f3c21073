#define FOCUS_ISA isa_avx2
#include "impl.h"
#include "table.h"

namespace focus::kernels {

const Tables& tables_avx2() {
  namespace i = FOCUS_ISA;
  static constexpr Tables tables = {
      {i::fir_forward<float>, i::fir_taps_gradient<float>, i::modal_scan<float>, i::modal_scan_gradient<float>},
      {i::fir_forward<double>, i::fir_taps_gradient<double>, i::modal_scan<double>, i::modal_scan_gradient<double>}};
  return tables;
}

}  // namespace focus::kernels
