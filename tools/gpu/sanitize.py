"""`gpu_suite sanitize`: compute-sanitizer over a reduced set of cases."""
import os
import re
import time

from .machine import run_within, say

TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
# What the sanitizer itself says, on lines that begin so, when the machine does not let it work.
REFUSED = re.compile(r"^={5,} *(?:.*(?:unable to|failed to|cannot|could not) "
                     r"(?:initiali[sz]e|attach|inject|launch|connect)|.*not supported|.*permission|"
                     r"Internal Sanitizer Error|.*No attachable process)", re.I | re.M)


# What Catch2 says when there were cases and all of them passed.
RAN = re.compile(r"^(?:All tests passed \(|Passed (?:all |both )?\d+ test case)", re.M)


def find_sanitizer():
    places = [os.path.join(os.environ[name], "bin") for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    places += os.environ.get("PATH", "").split(os.pathsep) + ["/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer"]
    for place in places:
        path = os.path.join(place, "compute-sanitizer")
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    return None


def sanitize_with(suite, sanitizer, tool, spec, seconds):
    # Exact allocations, unfilled: a store past their end and a load of what nobody wrote are then to be seen. A detector
    # downloads its outputs as one block, with the gaps between them; initcheck would take those for a mistake.
    environment = dict(suite.environment, FRCNN_EXACT_MEMORY="1")
    if tool == "initcheck":
        environment["FRCNN_FILLED_ARENA"] = "1"
    command = [sanitizer, "--tool", tool, "--error-exitcode", "99", "--print-limit", "20",
               *suite.command(spec, "--reporter", "compact")]
    started = time.monotonic()
    code, text, _ = run_within(command, seconds, environment, separate=False)
    summary = re.findall(r"=+ *((?:ERROR|RACECHECK) SUMMARY:.*)", text)
    findings = re.search(r"SUMMARY: (\d+)", summary[-1]) if summary else None
    if code is None:
        result = "out of time"
    elif findings and int(findings.group(1)) == 0 and code == 0 and RAN.search(text):
        result = "passed"
    elif not summary and REFUSED.search(text):
        result = "refused"
    else:
        result = "failed"
    return {"tool": tool, "result": result, "exit_code": code, "summary": summary[-1:] or [],
            "seconds": round(time.monotonic() - started, 1), "log_end": text.strip().splitlines()[-25:]}


def sanitize(suite, options, record):
    sanitizer = find_sanitizer()
    if sanitizer is None:
        say("SKIPPED: compute-sanitizer is not on this machine (CUDA_HOME, PATH, /usr/local/cuda)")
        record.set(tools=[], skipped="no compute-sanitizer")
        return os.environ.get("FRCNN_REQUIRE_GPU") != "1"
    tools = []
    for i, tool in enumerate(TOOLS):
        seconds = suite.left() / (len(TOOLS) - i)
        tools.append(sanitize_with(suite, sanitizer, tool, options.cases or "[coverage],[sanitize]", seconds))
        report = tools[-1]
        say("%s: %s, %s s %s" % (tool, report["result"].upper() if report["result"] == "refused" else report["result"],
                                 report["seconds"], " ".join(report["summary"])))
        if report["result"] != "passed":
            say("\n".join(report["log_end"]))
    allowed = ("passed",) if os.environ.get("FRCNN_REQUIRE_GPU") == "1" else ("passed", "refused")
    record.set(tools=tools)
    return all(report["result"] in allowed for report in tools)
