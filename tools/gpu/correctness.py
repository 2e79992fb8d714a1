"""`gpu_suite correctness`: every case of the suite, in as many processes as it takes."""
import os
import re
import sys
import xml.etree.ElementTree as ElementTree

from .folder import missing_references
from .machine import ANSWER_SECONDS, run, run_within, say


def case_names(binary, spec):
    """Of the cases that fit the specification; both versions of Catch2 list them, in different ways."""
    is_2 = re.search(r"version:\s*v?2\.", run([binary, "--libidentify"], ANSWER_SECONDS).stdout, re.I)
    listing = ["--list-test-names-only"] if is_2 else ["--list-tests", "--verbosity", "quiet"]
    text = run([binary, *listing, spec], ANSWER_SECONDS).stdout
    names = [line.strip().strip('"') for line in text.splitlines() if line.strip()]
    if not names or any(name.startswith("error:") for name in names):
        sys.exit("gpu_suite: no case is called %s\n%s" % (spec, text))
    return names


def read_cases(xml):
    """Finished cases of a Catch2 XML report that may end anywhere, and the name of one that began last and did not."""
    cases, open_case = {}, None
    parser = ElementTree.XMLPullParser(["start", "end"])
    try:
        parser.feed(xml)
        for event, element in parser.read_events():
            if element.tag != "TestCase":
                continue
            if event == "start":
                open_case = element.get("name")
            else:
                cases[open_case] = case_of(element)
                open_case = None
    except ElementTree.ParseError:
        pass
    return cases, open_case


def text_of(element):
    return " ".join((element.text or "").split())


def case_of(element):
    overall = element.find("OverallResult")
    failures, infos = [], []
    for part in element.iter():
        if part.tag == "Info":
            infos.append(text_of(part))
        elif part.tag == "Expression" and part.get("success") == "false":
            expanded = part.find("Expanded")
            failures.append({"where": "%s:%s" % (part.get("filename"), part.get("line")),
                             "what": text_of(expanded) if expanded is not None else "", "about": infos[-3:]})
        elif part.tag in ("Failure", "Exception", "FatalErrorCondition"):
            failures.append({"where": "%s:%s" % (part.get("filename"), part.get("line")), "what": text_of(part),
                             "about": infos[-3:]})
    passed = overall is not None and overall.get("success") == "true" and not failures
    return {"result": "passed" if passed else "failed", "seconds": float(overall.get("durationInSeconds", 0)),
            "notes": [text_of(part) for part in element.iter("Warning")], "failures": failures[:5],
            "failure_count": len(failures)}


def escaped(name):
    return re.sub(r"([\\,\[])", r"\\\1", name)


def run_cases(suite, names):
    """Runs the cases in one process; one that dies fails the case it is in, and those behind that are missing."""
    code, out, err = run_within(suite.command(",".join(map(escaped, names)), "--reporter", "xml", "--durations", "yes"),
                                suite.left(), suite.environment, separate=True)
    ended = "out of time" if code is None else "exit code %d" % code
    cases, open_case = read_cases(out)
    if open_case:
        cases[open_case] = {"result": "failed", "seconds": 0.0, "notes": [], "failure_count": 1,
                            "failures": [{"where": "", "what": "the program ended here: " + ended,
                                          "about": err.strip().splitlines()[-5:]}]}
    if code != 0 and cases and all(case["result"] == "passed" for case in cases.values()):
        # Everything that was looked at is right, and the program or the device did not survive the last of it.
        last = cases[next(reversed(cases))]
        last.update(result="failed", failure_count=1,
                    failures=[{"where": "", "what": "the program ended behind this case: " + ended,
                               "about": err.strip().splitlines()[-5:]}])
    if not cases:
        say("no case of %d was run: %s %s" % (len(names), ended, err.strip()[-500:]))
    return cases


def correctness(suite, options, record):
    missing_networks = missing_references(suite.folder)
    required = os.environ.get("FRCNN_REQUIRE_GPU") == "1"
    for name in missing_networks:
        say("%s: the folder was prepared without %s" % ("FAILED" if required else "SKIPPED", name))
    names = case_names(suite.binary, options.cases or "*")
    # An error that ends the device's context ends the process behind the case that made it (main.cpp); the rest goes on in
    # a fresh one, so that one error does not hide the others.
    cases, missing = {}, names
    while missing and suite.left() > 1:
        found = run_cases(suite, missing)
        cases.update(found)
        if not found:
            break
        missing = [name for name in missing if name not in found]
    lost = {"result": "not run", "seconds": 0.0, "notes": [], "failures": [], "failure_count": 0}
    report = [{"name": name, **cases.get(name, lost)} for name in names]
    for case in report:
        for note in case["notes"]:
            say("note: %s: %s" % (case["name"], note))
    for case in report:
        for failure in case["failures"]:
            say("%s: %s: %s %s" % (case["result"], case["name"], failure["what"], failure["about"]))
        if case["result"] == "not run":
            say("not run: %s" % case["name"])
    count = {result: sum(case["result"] == result for case in report) for result in ("passed", "failed", "not run")}
    passed = count["passed"] == len(report) and not (required and missing_networks)
    record.set(cases=report, count=count)
    return passed
