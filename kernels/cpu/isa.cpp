// Compiled once per instruction set, with FOCUS_ISA and FOCUS_TABLES naming the namespace and the table
// (kernels/CMakeLists.txt).
#include "attention.h"
#include "fir.h"
#include "hyena.h"
#include "linear.h"
#include "modal_scan.h"
#include "rows.h"
#include "table.h"

namespace focus::kernels {

const Tables& FOCUS_TABLES() {
  namespace i = FOCUS_ISA;
  static constexpr Tables tables = {
      {i::fir_forward<float>, i::fir_taps_gradient<float>, i::modal_scan<float>,
       i::modal_scan_gradient<float>},
      {i::fir_forward<double>, i::fir_taps_gradient<double>, i::modal_scan<double>,
       i::modal_scan_gradient<double>},
      {i::linear_pack<float, float>, i::linear_pack<float, Bf16>, i::linear<float>},
      {i::linear_pack<Bf16, float>, i::linear_pack<Bf16, Bf16>, i::linear<Bf16>},
      i::rms_norm<float>,
      i::rms_norm<Bf16>,
      i::rotate<float>,
      i::rotate<Bf16>,
      i::attention<float>,
      i::attention<Bf16>,
      i::attention_gradient<float>,
      i::attention_gradient<Bf16>,
      i::hyena<float>,
      i::hyena<Bf16>,
      i::hyena_gradient<float>,
      i::hyena_gradient<Bf16>};
  return tables;
}

}  // namespace focus::kernels
