"""`gpu_suite prepare`, on the machine that builds."""
import json
import os
import re
import shutil
import sys

from .correctness import case_names
from .folder import BESIDE, BINARY, PICTURE, ROOT, SCHEMA, TOOL, digest_of, folder_files, missing_references
from .machine import now, run, say

SYSTEM_LIBRARIES = re.compile(r"^(libc|libm|libdl|librt|libpthread|ld-linux-x86-64)\.so\.\d+$")


def run_or_stop(command, **more):
    say("+ " + " ".join(command))
    result = run(command, **more)
    if result.returncode:
        say(result.stdout[-8000:])
        sys.exit("gpu_suite: %s failed with %d" % (command[0], result.returncode))
    return result.stdout


def git(*arguments):
    result = run(["git", "-C", ROOT, *arguments])
    return result.stdout.strip() if result.returncode == 0 else ""


def check_binary(path):
    """What the program asks of the machine it runs on: no library that a GPU machine may lack."""
    text = run_or_stop(["readelf", "-d", path])
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", text)
    foreign = [name for name in needed if not SYSTEM_LIBRARIES.match(name)]
    if not needed or foreign:
        sys.exit("gpu_suite: %s needs %s" % (path, ", ".join(foreign) or "nothing at all, which cannot be"))
    versions = re.findall(r"GLIBC_(\d+)\.(\d+)", run_or_stop(["readelf", "--version-info", path]))
    glibc = max((int(major), int(minor)) for major, minor in versions)
    return needed, "%d.%d" % glibc


def finish_folder(folder, about):
    """Writes prepared.json."""
    files = {}
    for path in folder_files(folder):
        if path == os.path.join(folder, "prepared.json"):
            continue
        files[os.path.relpath(path, folder)] = {"bytes": os.path.getsize(path), "sha256": digest_of(path)}
    about = {"schema": SCHEMA, **about, "files": files}
    with open(os.path.join(folder, "prepared.json"), "w") as file:
        json.dump(about, file, indent=1)


def check_size(folder, limit):
    """Stops where the folder is larger than `limit` bytes, so that it travels easily."""
    sizes = [os.path.getsize(path) for path in folder_files(folder)]
    if sum(sizes) > limit:
        sys.exit("gpu_suite: %s has %d bytes, the limit is %d" % (folder, sum(sizes), limit))
    say("%s: %d files, %.1f MiB" % (folder, len(sizes), sum(sizes) / 2**20))


def check_references(folder, optional=False):
    missing = missing_references(folder)
    if not missing:
        return
    if not optional or os.environ.get("FRCNN_SHARED"):
        sys.exit("gpu_suite: no reference of %s: set FRCNN_SHARED to the folder of the reference data" % ", ".join(missing))
    say("SKIPPED: no reference data (FRCNN_SHARED is not set), so nothing of %s travels" % ", ".join(missing))


def write_references(record, folder, small=False):
    references = os.path.join(folder, "references")
    os.makedirs(references, exist_ok=True)
    environment = dict(os.environ, FRCNN_SUITE_REFERENCES=references)
    if small:
        environment["FRCNN_SUITE_SMALL"] = "1"
    say(run_or_stop([record], env=environment).rstrip())


def cached(build, name):
    with open(os.path.join(build, "CMakeCache.txt")) as cache:
        return re.search(r"^%s:\w+=(.*)$" % name, cache.read(), re.M).group(1)


def copy_program(program, folder):
    """gpu_suite itself, with what it imports, and the picture that is timed."""
    shutil.copy(program, os.path.join(folder, "gpu_suite"))
    for part in ("gpu", "peers"):
        shutil.copytree(os.path.join(BESIDE, part), os.path.join(folder, part), ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(os.path.join(ROOT, "weights", "images", "BloodImage_00007.jpg"), os.path.join(folder, PICTURE))


def prepare(options, program):
    build = os.path.abspath(options.built or options.build)
    folder = os.path.abspath(options.folder)
    if not options.built:
        run_or_stop(["cmake", "-G", "Ninja", "-S", ROOT, "-B", build, "-DCMAKE_BUILD_TYPE=Release", "-DFRCNN_DEV=ON",
                     "-DFRCNN_TESTS=", "-DFRCNN_CUDA=ON", "-DFRCNN_CUDA_ARCHITECTURES=" + options.architectures,
                     *options.cmake])
    run_or_stop(["cmake", "--build", build, "-j", str(options.jobs), "--target", BINARY, "frcnn_gpu_tool",
                 "gpu_suite_record"])
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    for name in (BINARY, TOOL):
        shutil.copy(os.path.join(build, "tests", "gpu_suite", name), os.path.join(folder, name))
    copy_program(program, folder)
    tool_needs = check_binary(os.path.join(folder, TOOL))
    say("%s needs %s, glibc %s" % (TOOL, " ".join(tool_needs[0]), tool_needs[1]))
    binary = os.path.join(folder, BINARY)
    needed, glibc = check_binary(binary)
    cases = len(case_names(binary, "*"))
    say("%s has %d cases, needs %s, glibc %s" % (BINARY, cases, " ".join(needed), glibc))
    write_references(os.path.join(build, "tests", "gpu_suite", "gpu_suite_record"), folder)
    check_references(folder, options.networks_optional)
    finish_folder(folder, {
        "commit": git("rev-parse", "HEAD"), "modified": bool(git("status", "--porcelain", "--untracked-files=no")),
        "date": now(), "architectures": cached(build, "FRCNN_CUDA_ARCHITECTURES"), "cases": cases, "needs": needed,
        "needs_glibc": glibc, "nvcc": run([cached(build, "FRCNN_NVCC"), "--version"]).stdout.strip().splitlines()[-1]})
    check_size(folder, options.limit_mib << 20)
    say("on the machine with the GPU: %s/gpu_suite correctness, sanitize, bench, peers" % os.path.relpath(folder))
