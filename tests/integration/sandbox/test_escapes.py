"""Code that a model wrote reaches nothing: each case is tried for real."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nightshard.benchmarks.judges.sandbox.bubblewrap import Sandbox
from nightshard.benchmarks.judges.sandbox.programs import End, Limits, Ran

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

MIB = 1 << 20


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made


def still_works(sandbox: Sandbox) -> bool:
    ran = sandbox.run("print(sum(map(int, input().split())))", "20 22\n")
    return (ran.end, ran.stdout) == (End.WELL, "42\n")


def tried(sandbox: Sandbox, attack: str, limits: Limits | None = None) -> Ran:
    """Run an attack that prints ``escaped`` where it succeeds."""
    ran = sandbox.run(attack, limits=limits)
    assert "escaped" not in ran.stdout, ran
    assert still_works(sandbox), ran
    return ran


READS = {
    "password file": "print(open('/etc/passwd').read() and 'escaped')",
    "home of root": "import os; print(os.listdir('/root') and 'escaped')",
    "home folders": "import os; print(os.listdir('/home') and 'escaped')",
    "the project": f"import os; print(os.listdir({str(Path.cwd())!r}) and 'escaped')",
    "processes": "import os; print(os.listdir('/proc') and 'escaped')",
    "environment of its parent": "print(open('/proc/1/environ').read() and 'escaped')",
    "devices": "import os\nif set(os.listdir('/dev')) - {'null', 'urandom'}: print('escaped')",
    "kernel settings": "print(open('/sys/kernel/hostname').read() and 'escaped')",
    "a symlink": (
        "import os\nos.symlink('/etc/shadow', '/tmp/link')\n"
        "print(open('/tmp/link').read() and 'escaped')"
    ),
    "a path upwards": "print(open('/tmp/../../../etc/hostname').read() and 'escaped')",
    "variables": (
        "import os\nknown = {'PYTHONHASHSEED', 'LANG', 'PWD', 'LC_CTYPE', 'LD_LIBRARY_PATH',"
        " 'OPENBLAS_NUM_THREADS'}\n"
        "if set(os.environ) - known: print('escaped')"
    ),
    "the host's name": "import socket\nif socket.gethostname() != 'sandbox': print('escaped')",
    "descriptors of the judge": (
        "import os\nfor number in range(3, 256):\n"
        "    try:\n        os.fstat(number)\n        print('escaped')\n"
        "    except OSError:\n        pass"
    ),
}


@pytest.mark.parametrize("name", READS)
def test_it_sees_nothing_of_the_host(sandbox: Sandbox, name: str) -> None:
    tried(sandbox, READS[name])


WRITES = {
    "the root folder": "open('/x', 'w').write('1'); print('escaped')",
    "the interpreter": "import sys; open(sys.executable, 'a').write('1'); print('escaped')",
    "a library": "import json; open(json.__file__, 'a').write('1'); print('escaped')",
    "the judge": "open('/inside.py', 'a').write('1'); print('escaped')",
    "shared memory": "open('/dev/shm/x', 'w').write('1'); print('escaped')",
    "a System V segment": (
        "import ctypes\nc = ctypes.CDLL(None)\nif c.shmget(7, 4096, 0o1666) >= 0: print('escaped')"
    ),
    "a mount": (
        "import ctypes\nc = ctypes.CDLL(None)\n"
        "if c.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0: print('escaped')"
    ),
}


@pytest.mark.parametrize("name", WRITES)
def test_it_changes_nothing_outside(sandbox: Sandbox, name: str) -> None:
    tried(sandbox, WRITES[name])


def test_it_reaches_no_network(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        server.settimeout(0.2)
        tried(
            sandbox,
            f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 2); print('escaped')",
        )
        with pytest.raises(TimeoutError):
            server.accept()


PROCESSES = {
    "a fork bomb": "import os\nwhile True:\n    os.fork()\n    print('escaped', flush=True)",
    "a program": "import subprocess; subprocess.run(['/bin/sh', '-c', 'true']); print('escaped')",
    "an interpreter": (
        "import os, sys; os.execv(sys.executable, [sys.executable, '-c', 'print(\"escaped\")'])"
    ),
    "a worker pool": (
        "import multiprocessing\nmultiprocessing.Process(target=print).start(); print('escaped')"
    ),
    "a signal to its parent": "import os; os.kill(os.getppid(), 9); print('escaped')",
    "a signal to all": "import os; os.kill(-1, 9); print('escaped')",
    "tracing its parent": (
        "import ctypes\nc = ctypes.CDLL(None)\nif c.ptrace(16, 1, 0, 0) == 0: print('escaped')"
    ),
    "another user namespace": (
        "import ctypes\nc = ctypes.CDLL(None)\nif c.unshare(0x10000000) == 0: print('escaped')"
    ),
    "its parent's memory": (
        "import ctypes\nc = ctypes.CDLL(None)\nb = ctypes.create_string_buffer(8)\n"
        "class V(ctypes.Structure): _fields_ = [('a', ctypes.c_void_p), ('n', ctypes.c_size_t)]\n"
        "v = V(ctypes.addressof(b), 8)\n"
        "if c.process_vm_readv(1, ctypes.byref(v), 1, ctypes.byref(v), 1, 0) > 0: print('escaped')"
    ),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_it_starts_and_touches_no_process(sandbox: Sandbox, name: str) -> None:
    tried(sandbox, PROCESSES[name])


def test_memory_is_bounded(sandbox: Sandbox) -> None:
    ran = tried(sandbox, "x = 'a' * (4 << 30); print('escaped')", Limits(memory=256 * MIB))
    assert ran.end is End.MEMORY


def test_many_threads_are_bounded_by_memory(sandbox: Sandbox) -> None:
    ran = tried(
        sandbox,
        "import threading, time\nfor n in range(5000):\n"
        "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "print('escaped')",
        Limits(memory=512 * MIB),
    )
    assert ran.end is not End.WELL


def test_an_endless_loop_costs_its_processor_time_and_a_sleeper_its_wall_time(
    sandbox: Sandbox,
) -> None:
    assert tried(sandbox, "while True: pass", Limits(cpu_s=1)).end is End.CPU
    loop = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    assert tried(sandbox, loop, Limits(cpu_s=1)).end is End.CPU
    assert tried(sandbox, "import time; time.sleep(60)", Limits(wall_s=0.5)).end is End.WALL


def test_a_busy_machine_changes_no_verdict(sandbox: Sandbox) -> None:
    ended = threading.Event()

    def burn() -> None:
        while not ended.is_set():
            sum(range(1000))

    threads = [threading.Thread(target=burn) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        work = "print(sum(i * i for i in range(3_000_000)) % 97)"
        assert sandbox.run(work, limits=Limits(cpu_s=5)).end is End.WELL
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_huge_output_ends_at_the_limit(sandbox: Sandbox) -> None:
    ran = sandbox.run("while True: print('x' * 1000)", limits=Limits(output=MIB))
    assert ran.end is End.OUTPUT
    assert len(ran.stdout) == MIB
    assert sandbox.run("open('/tmp/f', 'w').write('x' * 9999999)", limits=Limits(output=MIB)).end
    assert still_works(sandbox)


def test_what_one_program_leaves_the_next_does_not_find(sandbox: Sandbox) -> None:
    sandbox.run("import os\nos.makedirs('/tmp/a/b')\nopen('/tmp/a/b/c', 'w').write('left')")
    ran = tried(sandbox, "import os\nif os.listdir('/tmp'): print('escaped')")
    assert ran.end is End.WELL
    sandbox.run("import math\nmath.sqrt = lambda x: 'escaped'")
    assert sandbox.run("import math\nprint(math.sqrt(4))").stdout == "2.0\n"


@pytest.mark.parametrize(
    ("ending", "end"),
    [
        ("import sys; sys.exit()", End.WELL),
        ("import sys; sys.exit('no')", End.FAILED),
        ("import sys; sys.exit(3)", End.FAILED),
        ("import os; os._exit(0)", End.WELL),
        ("raise SystemExit", End.WELL),
        ("raise KeyboardInterrupt", End.FAILED),
        ("1/0", End.FAILED),
        ("import ctypes; ctypes.string_at(0)", End.FAILED),
        ("def", End.FAILED),
    ],
)
def test_every_way_to_end_is_understood(sandbox: Sandbox, ending: str, end: End) -> None:
    ran = sandbox.run(f"print('so far', flush=True)\n{ending}")
    assert ran.end is end
    assert still_works(sandbox)


def test_leaving_early_returns_no_result(sandbox: Sandbox) -> None:
    """A call's result is what the function returned, never what the program printed."""
    forged = "import os\nprint(42)\ndef f(x):\n    print(42)\n    os._exit(0)"
    assert sandbox.call(forged, "f", "(1,)").stdout == ""
    assert (
        sandbox.call("def f(x):\n    print('noise')\n    return x + 1", "f", "(41,)").stdout == "42"
    )


def test_patched_builtins_stay_in_the_program(sandbox: Sandbox) -> None:
    patched = (
        "import builtins\nclass Equal(int):\n    def __eq__(self, other): return True\n"
        "builtins.repr = lambda value: '42'\nbuiltins.len = lambda value: 42\n"
        "def f(x): return Equal(7)"
    )
    sandbox.call(patched, "f", "(1,)")
    assert sandbox.call("def f(x): return len(x)", "f", "('abc',)").stdout == "3"
    assert still_works(sandbox)


def test_nothing_of_it_is_left_when_it_is_closed() -> None:
    with Sandbox() as sandbox:
        assert still_works(sandbox)
        process = sandbox._process
    assert process is not None
    assert process.poll() is not None
