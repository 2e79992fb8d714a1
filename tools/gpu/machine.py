"""Programs that are run here, and what this machine is."""
import datetime
import os
import platform
import re
import signal
import subprocess
import sys

ANSWER_SECONDS = 60     # for a machine to say what it has, the driver's start included
GONE_SECONDS = 20       # for a program that was killed to be gone


def say(text):
    print(text, flush=True)


def run(command, seconds=None, **more):
    """With `seconds`, for what asks a GPU: one that does not answer ends the program."""
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                              timeout=seconds, **more)
    except subprocess.TimeoutExpired:
        sys.exit("FAILED: no answer within %d s: %s" % (seconds, " ".join(command)))


def run_within(command, seconds, environment, separate):
    """Exit code (None: out of time), standard output and standard error, the latter in the former unless separate."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE if separate else subprocess.STDOUT, text=True, errors="replace",
                               start_new_session=True)
    try:
        out, err = process.communicate(timeout=max(seconds, 1))
        return process.returncode, out, err
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)     # compute-sanitizer has a child
        try:
            out, err = process.communicate(timeout=GONE_SECONDS)
        except subprocess.TimeoutExpired:          # stuck in the driver
            out = err = ""
        return None, out, err or ""


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def machine(device):
    about = {"gpu": device, "os": platform.platform(), "cpus": os.cpu_count(), "python": platform.python_version()}
    try:
        with open("/proc/cpuinfo") as info:
            found = re.search(r"^model name\s*:\s*(.*)$", info.read(), re.M)
        about["cpu"] = found.group(1) if found else platform.processor()
        query = run(["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit,mig.mode.current",
                     "--format=csv,noheader"], ANSWER_SECONDS)
        if query.returncode == 0:
            about["nvidia_smi"] = query.stdout.strip().splitlines()[0]
    except OSError:
        pass
    return about


def gpu_state():
    """Clocks, power and temperature as nvidia-smi tells them now; what it does not tell is missing."""
    fields = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu", "memory.used")
    try:
        query = subprocess.run(["nvidia-smi", "--id=0", "--query-gpu=" + ",".join(fields), "--format=csv,noheader,nounits"],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=10)
        values = query.stdout.strip().splitlines()[0].split(",") if query.returncode == 0 else []
        return {field: float(value) for field, value in zip(fields, values) if re.fullmatch(r"[ \d.]+", value)}
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return {}
