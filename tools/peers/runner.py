"""Programs that time one image for every line that they are sent, each in a process of its own."""
import os
import select
import signal
import subprocess
import time

GONE_SECONDS = 20     # for a program that was killed to be gone


class PeerError(Exception):
    """A program that ended, said something else or did not answer in time."""


class Runner:
    """rule: as parity.compare() takes it; None for the program that the others are compared with."""

    def __init__(self, id, precision, rule, command, threads, name=None, log=None, environment=None):
        """log: a file for its standard error, whose last line then explains an end. environment: in place of this process's."""
        self.id, self.precision, self.rule, self.name, self.log = id, precision, rule, name, log
        self.samples, self.parity, self.buffer = [], None, b""
        environment = dict(environment or os.environ, OMP_NUM_THREADS=str(threads), OPENBLAS_NUM_THREADS=str(threads))
        errors = open(log, "wb") if log else None
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, bufsize=0,
                                            env=environment, start_new_session=True)
        finally:
            if errors:
                errors.close()

    def line(self, seconds=None):
        """The next one, without its end; None when the program has closed its output."""
        ends = None if seconds is None else time.monotonic() + seconds
        while b"\n" not in self.buffer:
            left = None if ends is None else max(0.0, ends - time.monotonic())
            if not select.select([self.process.stdout], [], [], left)[0]:
                self.kill()
                raise PeerError("no answer within %.0f s" % seconds)
            more = os.read(self.process.stdout.fileno(), 1 << 16)
            if not more:
                return None
            self.buffer += more
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.decode(errors="replace")

    def last_words(self):
        if not self.log:
            return ""
        with open(self.log, errors="replace") as file:
            lines = file.read().strip().splitlines()
        return ": " + lines[-1][:300] if lines else ""

    def ended(self):
        code = self.process.wait()
        return PeerError("it ended with exit code %d%s" % (code, self.last_words()))

    def wait_until_ready(self, seconds=None):
        """None, or why it cannot take part."""
        line = self.line(seconds)
        word, _, rest = (line or "").partition(" ")
        if word == "absent":
            self.process.wait()
            return rest
        if word != "ready":
            raise self.ended()
        self.name = self.name or rest.strip()
        return None

    def ask(self, line="", seconds=None):
        try:
            self.process.stdin.write(line.encode() + b"\n")
        except BrokenPipeError:
            raise self.ended()
        answer = self.line(seconds)
        if answer is None:
            raise self.ended()
        return answer

    def image(self, seconds=None):
        """Milliseconds."""
        answer = self.ask("", seconds)
        try:
            return float(answer)
        except ValueError:
            raise PeerError("its answer is no time: " + answer[:100])

    def finish(self, seconds=30):
        self.process.stdin.close()
        try:
            while self.line(seconds) is not None:
                pass
        except PeerError:     # it has been killed
            pass
        self.process.wait()

    def kill(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        try:
            self.process.wait(GONE_SECONDS)
        except subprocess.TimeoutExpired:     # stuck in a driver
            pass
