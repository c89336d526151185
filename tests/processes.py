"""Python in processes of their own, without the seconds that importing TensorFlow takes in each.

A server that has imported train.py, and done nothing with it, forks for every script. What it forks
is a process like any other: it dies alone, of whatever is sent to it.
"""

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 300  # seconds of a script


@dataclass(frozen=True)
class Finished:
    """returncode: minus the signal that ended the process; output: stdout and stderr together."""

    returncode: int
    output: str


def run_script(script: str, arguments: list[str], environment: dict[str, str]) -> Finished:
    """Runs Python code, to which `train` is imported already, as `python -c` would."""
    server = _server()
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as file:
        task = {"script": script, "argv": arguments, "env": environment, "output": file.name}
        try:
            server.stdin.write(json.dumps(task) + "\n")
            server.stdin.flush()
            answer = server.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            _server.cache_clear()  # the next script gets a new one
            raise RuntimeError(
                f"{' '.join(server.args)}: expected it to run a script, found it ended with status "
                f"{server.wait()}"
            )
        return Finished(int(answer), file.read())


@functools.cache
def _server() -> subprocess.Popen:
    """Ends with this process, whose end of the pipe closes."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.processes"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def serve() -> None:
    import train  # noqa: F401  # what every script needs

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        task = json.loads(line)
        child = os.fork()
        if not child:
            become(task)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)


def become(task: dict) -> None:
    """Runs a task and ends; of itself after LIMIT seconds."""
    signal.alarm(LIMIT)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    file = os.open(task["output"], os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(task["env"])
    sys.argv = ["-c", *task["argv"]]
    code: object = 0
    try:
        exec(compile(task["script"], "<script>", "exec"), {"__name__": "__main__"})
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else bool(code))


if __name__ == "__main__":
    serve()
