// Which device each block of a backbone runs on: large models are split over several, in order.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "focus/model/backbone.h"

namespace focus::model {

/// "cuda:0" (all blocks), "cuda:0,cuda:1" (contiguous shares of about the same number of parameter bytes, in
/// this order), or "cuda:0=0-19,cuda:1=20-31" (block ranges, both ends included, that cover all blocks once).
/// One device per block. Throws ConfigError; does not check that a device exists.
std::vector<at::Device> parse_placement(const std::string& text, const Backbone& backbone);

/// What `--device` means on this machine: "auto" becomes cuda:0 or cpu; anything else stays, if each device
/// it names is there. Needs no model, for checks before anything is loaded. ConfigError as above, DeviceError
/// for a device that is not there.
std::string resolve_devices(const std::string& text);
/// The first device of a resolved placement: where tokens enter and logits leave.
at::Device first_device(const std::string& text);
/// "fp32" or "bf16": what a backbone's weights and arithmetic are in. ConfigError.
at::ScalarType parse_dtype(const std::string& text);

}  // namespace focus::model
