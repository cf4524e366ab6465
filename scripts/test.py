"""`make test`: every check, in the order in which it fails fastest. Says what could not be run, and why.

With CI set, whatever cannot run is a failure. Arguments go to pytest: make test ARGS="ledger -k refund". Without them all tests run,
in two processes with servers of their own.

`make test-services`: the tests once more, on what many machines share (services.py). Only what touches none of it is left out.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from dmlsite.embedded import ServerError
from scripts import services

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
CI = bool(os.environ.get("CI"))
FORGE = ROOT / "node_modules" / ".bin" / "forge"
SIDE_BY_SIDE = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]

FRONT = {"/usr/sbin/nginx": "nginx-light"}
"""What tests/services puts in front of the site."""
NO_SERVICE = {
    "contracts/tests": "a chain and nothing else",
    "dmlworker/tests": "what people install: it knows a platform by HTTP only, and tests/ has real workers",
    "ledger/tests/test_model_chain.py": "a chain and nothing else",
    "dmlclient/tests/test_estimators.py": "a client by HTTP, as in test_client.py; its many tickets ask scikit-learn's questions",
}
"""Left out on the services: nothing in there would be another than on the embedded default. Why."""


def ensure_chromium() -> str:
    """Why the browser tests cannot run, or an empty text. As root on Debian the browser is installed."""
    if shutil.which("chromium"):
        return ""
    if os.getuid() != 0 or not shutil.which("apt-get"):
        return "no Chromium: apt-get install chromium"
    print("Installing Chromium for the browser tests …", flush=True)
    quiet = {"stdout": subprocess.DEVNULL, "env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}}
    subprocess.run(["apt-get", "update", "-qq"], check=False, **quiet)
    done = subprocess.run(
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"], check=False, **quiet
    )
    return "" if done.returncode == 0 else "Chromium could not be installed"


def run(title: str, *command: str) -> bool:
    print(f"\n── {title}", flush=True)
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT)
    print(f"   {'passed' if done.returncode == 0 else 'FAILED'} after {time.monotonic() - began:.0f} s", flush=True)
    return done.returncode == 0


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--services"]:
        return on_services(arguments[1:])
    missing = ensure_chromium()
    options = ["--ignore=tests/browser"] if missing else []
    if not arguments:
        options += SIDE_BY_SIDE
    if CI:
        options.append("--maxfail=5")  # a broken platform fails every test after a long wait
    results = [] if arguments else checks()
    results.append(run("pytest", sys.executable, "-m", "pytest", "-q", *options, *arguments))
    if missing:
        print(f"\nNot run: the browser tests ({missing})")
    return 0 if all(results) and not (missing and CI) else 1


def on_services(arguments: list[str]) -> int:
    """On services of our own in a fresh folder, which are ended and forgotten afterwards."""
    folder = ROOT / "var" / "test-services"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        if os.getuid() == 0 and shutil.which("apt-get"):
            services.install(services.PROGRAMS | FRONT)
        stack = services.up(folder, {}, lambda name: print(f"{name} …", flush=True))
    except ServerError as error:
        print(error)
        return 1
    os.environ["DML_SERVICES"] = str(folder)
    os.environ.setdefault("LEDGER_EXAMPLES", "30")  # the books' random walks: a tenth of those in the first suite
    left_out = [f"--ignore={place}" for place in NO_SERVICE]
    try:
        return main(["-m", "not embedded", *([] if arguments else SIDE_BY_SIDE), *left_out, *arguments])
    finally:
        services.down(stack)
        shutil.rmtree(folder, ignore_errors=True)


def checks() -> list[bool]:
    return [
        run("style (ruff)", str(BIN / "ruff"), "check", "."),
        run("format (ruff)", str(BIN / "ruff"), "format", "--check", "."),
        run("who may import whom (import-linter)", str(BIN / "lint-imports"), "--no-cache"),
        run("contracts (forge)", str(FORGE), "test"),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
