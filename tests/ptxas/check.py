"""Compiles CUDA sources and holds what ptxas says of each kernel: no stack frame, no spills, and not more registers
than its ceiling.

    check.py --nvcc nvcc --ceilings ceilings.txt --archs 80,90a [--list] file.cu... --flags FLAG...

Exit code 1 names every kernel that breaks a rule; --list prints the registers of all.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys

# Registers with which a multiprocessor still holds all the threads it can: 65536 for 2048 threads are 32 each, for the
# 1536 of 8.6 and 8.9 40 (they are given out in eights). Fewer gain nothing, so that is never too many.
FULL = {"86": 40, "89": 40}


def read_ceilings(path):
    """[(pattern, registers)]; the first pattern that occurs in a kernel's demangled name counts."""
    ceilings = []
    for number, line in enumerate(open(path), 1):
        text = line.split("#")[0].strip()
        if not text:
            continue
        match = re.fullmatch(r"(\S.*\S|\S)\s+(\d+)", text)
        if not match:
            sys.exit(f"{path}:{number}: not a pattern and a number: {text}")
        ceilings.append((re.compile(match[1]), int(match[2])))
    return ceilings


def demangled(names):
    if not names:
        return {}
    out = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    clean = [line.replace("(anonymous namespace)::", "").replace("frcnn::cuda::", "") for line in out.splitlines()]
    return dict(zip(names, clean))


def compiled(args, source, archs):
    """[(arch, mangled name, registers, {what: bytes})] of one source."""
    command = [args.nvcc, *args.flags, "-fatbin", "-Xptxas", "-v", "-o", os.devnull, source]
    command += [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"{' '.join(command)}\n{run.stdout}{run.stderr}")
    kernels, arch, name, memory = [], None, None, {}
    for line in (run.stdout + run.stderr).splitlines():
        if found := re.search(r"Compiling entry function '(\S+)' for 'sm_(\w+)'", line):
            name, arch, memory = found[1], found[2], {}
        elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            memory = dict(zip(("stack frame", "spill stores", "spill loads"), map(int, found.groups())))
        elif (found := re.search(r"Used (\d+) registers", line)) and name:
            kernels.append((arch, name, int(found[1]), memory))
            name = None
    has_kernels = "__global__" in open(source).read()
    if has_kernels and (missing := set(archs) - {kernel[0] for kernel in kernels}):
        sys.exit(f"{source}: ptxas said nothing of a kernel for {sorted(missing)}")
    return kernels


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nvcc", required=True)
    parser.add_argument("--ceilings", required=True)
    parser.add_argument("--archs", required=True)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, required=True, help="those of the build, without -gencode; last")
    args = parser.parse_args()
    if not shutil.which("c++filt"):
        sys.exit("c++filt (binutils) is needed to read the kernels' names")
    archs = args.archs.split(",")
    ceilings = read_ceilings(args.ceilings)
    broken, count = [], 0
    for source in args.sources:
        kernels = compiled(args, source, archs)
        names = demangled(sorted({kernel[1] for kernel in kernels}))
        for arch, mangled, registers, memory in kernels:
            name = re.sub(r"\(.*", "", names[mangled].removeprefix("void "))
            where = f"{os.path.basename(source)}: {name} for sm_{arch}"
            count += 1
            if args.list:
                print(f"{registers:4} registers  {where}")
            if not memory:
                broken.append(f"{where}: ptxas said nothing of its stack")
            broken += [f"{where}: {size} bytes of {what}" for what, size in memory.items() if size]
            ceiling = next((limit for pattern, limit in ceilings if pattern.search(name)), None)
            if ceiling is None:
                broken.append(f"{where}: {registers} registers, and no line of {args.ceilings} for it")
            elif registers > max(ceiling, FULL.get(arch, 32)):
                broken.append(f"{where}: {registers} registers, its ceiling is {ceiling}")
    print(f"{count} kernels for {', '.join('sm_' + arch for arch in archs)}")
    if broken:
        print("\n".join(broken))
    return 1 if broken else 0


sys.exit(main())
