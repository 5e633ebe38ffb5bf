"""The process inside the sandbox: forks a child for each program. Standard library only.

It is the first process of its own PID namespace, so that nothing inside can kill it, and it cannot
be traced. One JSON line in, one JSON line out, on the standard input and output that it was started
with; children never see them.
"""

import ast
import bisect
import collections
import contextlib
import copy
import ctypes
import datetime
import decimal
import fractions
import functools
import gc
import heapq
import io
import itertools
import json
import math
import operator
import os
import platform
import random
import re
import resource
import select
import shutil
import signal
import statistics
import string
import struct
import sys
import time
import traceback
import typing

# Solutions import these: a child has them already.
WARM = (bisect, collections, copy, datetime, decimal, fractions, functools, heapq, itertools, math)
WARM_TOO = (operator, random, re, statistics, string, typing)

PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 4, 38, 22, 2

# Numbers of what a solution never needs: to start programs or processes, to reach out, to leave
# something behind in shared memory, to change what it may do. From the kernel's syscall tables.
FORBIDDEN = {
    "x86_64": (
        0xC000003E,
        {
            *(57, 58, 435, 59, 322),  # fork, vfork, clone3, execve, execveat
            *(41, 42, 43, 49, 50, 53, 288),  # socket, connect, accept, bind, listen, socketpair
            *(29, 30, 31, 64, 65, 66, 68, 69, 70, 71, 240, 241),  # System V and POSIX queues
            *(101, 310, 311, 62, 200, 234, 424),  # ptrace, process_vm_*, kill, tkill, tgkill
            *(165, 166, 155, 161, 272, 308, 321, 298, 425, 426, 427),  # mount … bpf, perf, io_uring
            *(248, 249, 250, 323, 442, 429, 432),  # keys, userfaultfd, new mount calls
        },
        56,
    ),
    "aarch64": (
        0xC00000B7,
        {
            *(435, 221, 281),
            *(198, 203, 202, 200, 201, 199, 242),
            *(194, 195, 196, 190, 191, 193, 186, 187, 188, 189, 180, 181),
            *(117, 270, 271, 129, 130, 131, 424),
            *(40, 39, 41, 51, 97, 268, 280, 241, 425, 426, 427),
            *(217, 218, 219, 282, 442, 429, 432),
        },
        220,
    ),
}
CLONE_THREAD = 0x10000
REPLY, ASK = 3, 4  # a child's descriptors towards the function that it examines
Talk = typing.Callable[[typing.Any], bytes]
EPERM, ENOSYS = 1, 38
CLONE3 = 435

BPF_LOAD, BPF_JEQ, BPF_JSET, BPF_RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
AT_NUMBER, AT_ARCH, AT_ARGUMENT = 0, 4, 16


def seccomp_program(machine: str) -> bytes:
    """Return the filter for a machine as instructions of BPF; empty where it is not known."""
    if machine not in FORBIDDEN:
        return b""
    arch, numbers, clone = FORBIDDEN[machine]
    lines = [(BPF_LOAD, 0, 0, AT_ARCH), (BPF_JEQ, 1, 0, arch), (BPF_RETURN, 0, 0, KILL)]
    lines.append((BPF_LOAD, 0, 0, AT_NUMBER))
    for number in sorted(numbers):
        # glibc falls back on clone, whose flags can be read, where clone3 is not there.
        error = ENOSYS if number == CLONE3 else EPERM
        lines += [(BPF_JEQ, 0, 1, number), (BPF_RETURN, 0, 0, ERRNO | error)]
    lines += [
        (BPF_JEQ, 0, 3, clone),
        (BPF_LOAD, 0, 0, AT_ARGUMENT),
        (BPF_JSET, 1, 0, CLONE_THREAD),
        (BPF_RETURN, 0, 0, ERRNO | EPERM),
        (BPF_RETURN, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *line) for line in lines)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


LIBC = ctypes.CDLL(None, use_errno=True)


def forbid() -> None:
    """Install the filter in this process, for good."""
    content = seccomp_program(platform.machine())
    if not content:
        return
    buffer = ctypes.create_string_buffer(content, len(content))
    program = _Program(len(content) // 8, ctypes.addressof(buffer))
    pointer = ctypes.byref(program)
    if LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or LIBC.prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, pointer, 0, 0
    ):
        raise OSError(ctypes.get_errno(), "the seccomp filter was refused")


def memory_file(name: str, content: bytes = b"") -> int:
    """Return a file in memory that is rewound."""
    descriptor = os.memfd_create(name)
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def limit(job: dict[str, typing.Any]) -> None:
    """Set this process's limits."""
    resource.setrlimit(resource.RLIMIT_CPU, (job["cpu_s"], job["cpu_s"] + 1))
    resource.setrlimit(resource.RLIMIT_AS, (job["memory"], job["memory"]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (job["output"], job["output"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def child(job: dict[str, typing.Any], files: tuple[int, ...]) -> typing.NoReturn:
    """Run a program; never returns. With five files the last two lead to the function examined."""
    code = 1
    try:
        for number, descriptor in enumerate(files):
            os.dup2(descriptor, number)
        os.closerange(len(files), 4096)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0)), encoding="utf-8")
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w")), encoding="utf-8")
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w"), encoding="utf-8", write_through=True)
        for name in ("stdin", "stdout", "stderr"):
            setattr(sys, f"__{name}__", getattr(sys, name))
        sys.argv = ["answer.py"]
        limit(job)
        forbid()
        code = execute(job)
    except BaseException:  # noqa: BLE001 (a program may raise anything)
        code = 1
        traceback.print_exc(limit=8)
    finally:
        try:
            sys.stdout.flush()
        except BaseException:  # noqa: BLE001 (what it printed is too much, or stdout is closed)
            code = code or 1
        os._exit(code)


def execute(job: dict[str, typing.Any]) -> int:
    """Run the source as a script, call one of its functions, or examine one."""
    names: dict[str, typing.Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    if "exam" in job:
        names["candidate"] = ask
        prepare(job, names)
        perform(job["exam"], names)
    elif "call" in job:
        call(job, names)
    else:
        try:
            prepare(job, names)
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def prepare(job: dict[str, typing.Any], names: dict[str, typing.Any]) -> None:
    """Run what comes first, then the program."""
    if job["prelude"]:
        exec(job["prelude"], names)  # noqa: S102 (that is the job)
    perform(job["source"], names)


@functools.lru_cache(maxsize=8)
def compiled(prelude: str) -> typing.Any:
    """Compile what many programs begin with, before they are forked; they report what is wrong."""
    try:
        return compile(prelude, "prelude.py", "exec")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return prelude


def perform(source: str, names: dict[str, typing.Any]) -> None:
    """Run source in a namespace."""
    exec(compile(source, "answer.py", "exec"), names)  # noqa: S102 (that is the job)


def call(job: dict[str, typing.Any], names: dict[str, typing.Any]) -> None:
    """Call a function, with nothing on standard output but the representation of its result."""
    result = os.dup(1)
    os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
    names["__name__"] = "answer"
    prepare(job, names)
    what = job["call"]
    owner, _, method = what["name"].rpartition(".")
    function: typing.Any = getattr(names[owner](), method) if owner else names[method]
    text = repr(plain(function(*ast.literal_eval(what["arguments"]))))
    with os.fdopen(result, "wb") as stream:
        stream.write(text.encode("utf-8", "backslashreplace"))


def plain(value: typing.Any) -> typing.Any:
    """Return a value that equals the given one and, where that is possible, is a literal."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, tuple):
        return tuple(plain(one) for one in value)
    if isinstance(value, dict):  # Counter and its like equal a dict
        return {plain(key): plain(one) for key, one in value.items()}
    if type(value).__module__ == "numpy":
        return value.tolist()
    return value


def ask(*arguments: typing.Any) -> typing.Any:
    """Call the function that is examined, which is in another sandbox."""
    line = json.dumps(repr(plain(arguments))) + "\n"
    os.write(ASK, line.encode())
    reply = b""
    while not reply.endswith(b"\n"):
        piece = os.read(REPLY, 1 << 16)
        if not piece:
            raise RuntimeError("nobody answers")
        reply += piece
    told = json.loads(reply)
    if "result" not in told:
        raise AssertionError(told["fault"])
    return ast.literal_eval(told["result"])


def relay(pid: int, asked: int, answer: int, wall_s: float, talk: Talk) -> bool:
    """Carry a child's questions out and the answers in; return whether it is late."""
    ends = time.monotonic() + wall_s
    buffer = b""
    while True:
        left = ends - time.monotonic()
        if left <= 0 or not select.select([asked], [], [], left)[0]:
            os.kill(pid, signal.SIGKILL)
            return True
        piece = os.read(asked, 1 << 16)
        if not piece:
            return False
        buffer += piece
        while b"\n" in buffer:
            line, buffer = buffer.split(b"\n", 1)
            reply = talk(json.loads(line))
            with contextlib.suppress(BrokenPipeError):
                os.write(answer, reply)


def run(job: dict[str, typing.Any], talk: Talk) -> dict[str, typing.Any]:
    """Fork, wait for the child's end or the wall limit, and say how it ended."""
    files = (
        memory_file("stdin", job.get("stdin", "").encode("utf-8", "surrogatepass")),
        memory_file("stdout"),
        memory_file("stderr"),
    )
    began = time.monotonic()
    job["prelude"] = compiled(job["prelude"])
    if job.get("exam"):
        asked, asks = os.pipe()
        hears, answer = os.pipe()
        pid = os.fork()
        if pid == 0:
            child(job, (*files, hears, asks))
        os.close(asks)
        os.close(hears)
        late = relay(pid, asked, answer, job["wall_s"], talk)
        os.close(asked)
        os.close(answer)
    else:
        pid = os.fork()
        if pid == 0:
            child(job, files)
        late = signal.sigtimedwait({signal.SIGCHLD}, job["wall_s"]) is None
        if late:
            os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    sweep()
    output, errors = (os.pread(one, job["output"] + 1, 0) for one in files[1:])
    for descriptor in files:
        os.close(descriptor)
    return {
        "exit_code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
        "late": late,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "wall_s": time.monotonic() - began,
        "stdout": output.decode("utf-8", "replace"),
        "stderr": errors[-2000:].decode("utf-8", "replace"),
    }


def sweep() -> None:
    """Remove whatever a program has left: processes and files."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)  # all but this process, which is the namespace's first
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                break
        except ChildProcessError:
            break
    signal.sigtimedwait({signal.SIGCHLD}, 0)
    for entry in os.scandir("/tmp"):  # noqa: S108 (the sandbox's own)
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            os.unlink(entry.path)  # noqa: PTH108 (a name may be anything)


def main() -> None:
    """Serve until the input ends."""
    LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    commands = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    nothing = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1):
        os.dup2(nothing, number)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    sys.path.append("/packages")
    for name in sys.argv[1:]:
        __import__(name)
    gc.freeze()
    replies.write(b'{"ready": true}\n')
    replies.flush()

    def say(value: typing.Any) -> None:
        replies.write(json.dumps(value).encode() + b"\n")
        replies.flush()

    def talk(question: typing.Any) -> bytes:
        say({"asks": question})
        return commands.readline()

    for line in commands:
        say(run(json.loads(line), talk))


if __name__ == "__main__":
    main()
