#include "focus/kernels/cuda/modal_scan.h"

#include <c10/core/DeviceGuard.h>

#include "cuda_kernels.h"
#include "filter_taps.h"
#include "scan_states.h"

namespace focus::ops {

using at::Tensor;

int64_t CudaKernels::max_modes() const { return kernels::cuda::kScanModes; }

DeviceKernels::ScanOutput CudaKernels::scan(const Tensor& p_BLD, const Modes& modes_of_D,
                                            const Tensor& initial_BND) const {
  const c10::DeviceGuard guard(p_BLD.device());
  const Tensor p = with_dense_rows(p_BLD);
  const Modes modes = contiguous(modes_of_D);
  const Tensor y = at::empty(p.sizes(), p.options()),
               final = at::empty(initial_BND.sizes(), initial_BND.options()),
               states = states_from(initial_BND, p.size(1));
  with_type(p, [&]<class T>(T*) {
    kernels::cuda::modal_scan<T>({data<T>(p), p.stride(0), kernel_modes(modes, states, final),
                                  data<T>(modes.skip_D), written<T>(y), p.size(0), p.size(1), p.size(2)},
                                 current_stream(p.device()));
  });
  return {y, final, states};
}

DeviceKernels::ScanGradient CudaKernels::scan_gradient(const Tensor& p_BLD, const Tensor& dy_BLD,
                                                       const Modes& modes_of_D, const Tensor& states,
                                                       const Tensor& dfinal_BND, bool filters) const {
  const c10::DeviceGuard guard(p_BLD.device());
  const Tensor p = p_BLD.contiguous(), dy = dy_BLD.contiguous();
  const Modes modes = contiguous(modes_of_D);
  const Tensor dstates = at::empty(states.sizes(), states.options()),
               last = dstates.select(1, states.size(1) - 1);
  dfinal_BND.defined() ? last.copy_(dfinal_BND) : last.zero_();
  const auto partial = [&] { return filters ? at::empty(states.sizes(), states.options()) : Tensor(); };
  const Tensor dp = at::empty(p.sizes(), p.options()), dpoles = partial(), dresidues = partial(),
               dinitial = at::empty({states.size(0), states.size(2), states.size(3)}, states.options());
  with_type(p, [&]<class T>(T*) {
    kernels::cuda::modal_scan_gradient<T>(
        {data<T>(p), data<T>(dy), data<float>(modes.log_poles_DN), data<float>(modes.residues_DN),
         data<float>(states), data<T>(modes.skip_D), written<float>(dstates), written<T>(dp),
         written<float>(dinitial), written<float>(dpoles), written<float>(dresidues), p.size(0), p.size(1),
         states.size(2), p.size(2)},
        current_stream(p.device()));
  });
  const auto sum = [](const Tensor& parts) {
    return parts.defined() ? parts.sum(at::IntArrayRef{0, 1}).t() : Tensor();
  };
  return {dp, dinitial, sum(dpoles), sum(dresidues)};
}

}  // namespace focus::ops
