"""Duecall's processes and their commands: the lines of the Procfile, for `duecall up`."""

import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


def commands(*, api_port: int, console_port: int, flower_port: int) -> dict[str, tuple[str, ...]]:
    """Return each process's command by its name, in start order. A test compares them with the Procfile."""
    python = (sys.executable, "-m")
    worker = (*python, "celery", "-A", "workers.app", "worker")
    quiet = ("--without-gossip", "--without-mingle", "--loglevel", "INFO")
    threads = ("--pool", "threads", "--concurrency")
    return {
        "api": (
            *python,
            *("uvicorn", "api_shim.app:app", "--host", "127.0.0.1", "--port", str(api_port)),
            *("--http", "api_shim.connections:Connection", "--no-access-log", "--timeout-graceful-shutdown", "15"),
        ),
        "console": (
            *python,
            *("uvicorn", "console.app:app", "--host", "127.0.0.1", "--port", str(console_port)),
            *("--http", "api_shim.connections:Connection", "--no-access-log", "--timeout-graceful-shutdown", "15"),
        ),
        "clock": (
            *python,
            *("celery", "-A", "workers.app", "beat", "--scheduler", "workers.clock:Clock"),
            *("--pidfile=", "--loglevel", "INFO"),
        ),
        "dial": (*worker, "-Q", "dial", "--pool", "solo", "--hostname", "dial@%h", *quiet),
        "intake": (*worker, "-Q", "intake", *threads, "4", "--hostname", "intake@%h", *quiet),
        "bulk": (*worker, "-Q", "bulk", *threads, "2", "--hostname", "bulk@%h", *quiet),
        "callbacks": (*worker, "-Q", "callbacks", *threads, "4", "--hostname", "callbacks@%h", *quiet),
        "settle": (*worker, "-Q", "settle", *threads, "2", "--hostname", "settle@%h", *quiet),
        "webhooks": (*worker, "-Q", "webhooks", "--pool", "solo", "--hostname", "webhooks@%h", *quiet),
        "maintenance": (*worker, "-Q", "maintenance", *threads, "2", "--hostname", "maintenance@%h", *quiet),
        "flower": (
            *python,
            *("celery", "-A", "workers.app", "flower"),
            *(f"--conf={_ROOT / 'workers' / 'flowerconfig.py'}", "--address=127.0.0.1", f"--port={flower_port}"),
        ),
    }


def simulator_command(*, port: int, journal: Path) -> tuple[str, ...]:
    """Return the command of the simulated carrier, which keeps its calls in `journal` over a restart."""
    return (sys.executable, "-m", "scheduler", "simulator", "--port", str(port), "--journal", str(journal))
