#!/usr/bin/env python3
"""Reads a run's TensorBoard file with TensorBoard itself and compares it with metrics.jsonl.

  scripts/check_events.py RUN_FOLDER        (needs: pip install tensorboard)

Exit status 0: every number of metrics.jsonl is there once, at its step, and nothing else.
"""

import json
import os
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__)
        return 1
    accumulator = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0}, purge_orphaned_data=False)
    accumulator.Reload()
    found = sorted((tag, event.step, event.value) for tag in accumulator.Tags()["scalars"] for event in accumulator.Scalars(tag))
    expected = []
    with open(os.path.join(sys.argv[1], "metrics.jsonl")) as file:
        for line in map(json.loads, file):
            for name, value in line.items():
                if name != "step" and isinstance(value, (int, float)):
                    expected.append((name, line["step"], struct.unpack("f", struct.pack("f", value))[0]))
    if found != sorted(expected):
        print(f"different: {len(found)} values in the TensorBoard file, {len(expected)} in metrics.jsonl; first difference:",
              next(((a, b) for a, b in zip(found, sorted(expected)) if a != b), "one list is longer"))
        return 1
    print(f"{len(found)} values of {len(accumulator.Tags()['scalars'])} tags: equal")
    return 0


if __name__ == "__main__":
    sys.exit(main())
