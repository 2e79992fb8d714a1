"""The least time that a layer can take: its FLOP at the rate of a large matrix product of that precision, or its bytes at
the rate of a copy, whichever is more. Every tensor counts once, as if nothing were fused and nothing found in a cache."""
import json
import os

from .folder import BESIDE
from .machine import run_within

# An H200's, where nothing was measured: TFLOP/s of dense products of random numbers, GB/s read and written by a copy.
ASSUMED = {"fp16": 790.0, "bf16": 790.0, "tf32": 395.0, "fp32": 60.0, "copy": 4300.0}


def measured_rates(python, device, side, seconds):
    """By tools/peers/rates.py; {"absent": why} where it cannot."""
    script = os.path.join(BESIDE, "peers", "rates.py")
    code, out, err = run_within([python, script, device, str(side)], seconds, dict(os.environ), separate=True)
    try:
        found = json.loads(out.strip().splitlines()[-1])
    except (ValueError, IndexError):
        last = err.strip().splitlines()[-1:]
        found = {"absent": "out of time" if code is None else "exit code %d: %s" % (code, " ".join(last)[:300])}
    return found


def ceilings(found):
    """{precision: {"tflop_per_s", "source"}} and {"copy": {"gb_per_s", "source"}}, from what was measured or assumed."""
    result = {}
    rates = found.get("tflop_per_s", {})
    for name in ("fp16", "bf16", "tf32", "fp32"):
        source = "measured" if name in rates else "assumed"
        result[name] = {"tflop_per_s": rates.get(name, ASSUMED[name]), "source": source}
    # Three products of tf32 make one.
    result["tf32x3"] = {"tflop_per_s": result["tf32"]["tflop_per_s"] / 3, "source": result["tf32"]["source"]}
    copied = "copy_gb_per_s" in found
    result["copy"] = {"gb_per_s": found["copy_gb_per_s"] if copied else ASSUMED["copy"],
                      "source": "measured" if copied else "assumed"}
    return result


def add_floors(layers, precision, limits):
    """Adds floor_ms, bound and of_floor (the floor's share of the time taken) to frcnn bench's layers."""
    for layer in layers:
        arithmetic = layer["gflop"] / limits[precision]["tflop_per_s"]
        transfer = layer["mbytes"] / limits["copy"]["gb_per_s"]
        layer["floor_ms"] = max(arithmetic, transfer)
        layer["bound"] = "arithmetic" if arithmetic > transfer else "bytes"
        layer["of_floor"] = layer["floor_ms"] / layer["ms"] if layer["ms"] > 0 else None
