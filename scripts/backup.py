"""Keep what a platform cannot make anew, and bring it back: the database, and files where they lie on a disk.

python -m scripts.backup dump FOLDER        while the platform runs
python -m scripts.backup restore FOLDER     into an empty database, before anything of the platform is started

Both read DATABASE_URL and DML_VAR_DIR as the platform does. An object store keeps its own versions, keys and passphrase lie with
whoever guards them, Redis and RabbitMQ hold nothing that is missed (docs/operations.md).
"""

import argparse
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from dmlsite import embedded
from dmlsite.embedded import ServerError, made

DUMP = "database.dump"


def dump(folder: Path, database: str, files: Path) -> None:
    """Nothing is stopped. What a row names was stored before the row, and is removed after it: so files are copied before the database, for
    what is removed meanwhile, and again after it, for what came meanwhile. Raises ServerError."""
    made(folder).chmod(0o700)
    copy(files, folder / "files")
    _run("pg_dump", "--format=custom", "--no-owner", f"--file={folder / DUMP}", f"--dbname={database}")
    copy(files, folder / "files")


def restore(folder: Path, database: str, files: Path) -> None:
    """All of it or nothing: the database has to be empty. Raises ServerError."""
    _run(
        "pg_restore",
        "--no-owner",
        "--exit-on-error",
        "--single-transaction",
        f"--dbname={database}",
        str(folder / DUMP),
    )
    copy(folder / "files", files)


def copy(source: Path, target: Path) -> None:
    """What is not there yet: a stored file never changes, but may have been half written the last time. One that goes away meanwhile is
    not missed."""
    made(target)
    for file in source.rglob("*"):
        place = target / file.relative_to(source)
        with suppress(FileNotFoundError):
            if file.is_file() and not (place.exists() and place.stat().st_size == file.stat().st_size):
                made(place.parent)
                shutil.copyfile(file, half := place.with_name(f"{place.name}.half"))
                half.rename(place)


def _run(program: str, *arguments: str) -> None:
    """The machine's own program, or the embedded default's, which is newer than most servers."""
    found = embedded.POSTGRES_BIN / program
    place = str(found) if found.exists() else shutil.which(program)
    if not place:
        raise ServerError(f"{program} is missing: apt-get install postgresql-client")
    done = subprocess.run([place, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise ServerError(f"{program} failed:\n{done.stderr[-3000:]}")


def main() -> int:
    from dmlsite import env

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["dump", "restore"])
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    var = env.path("DML_VAR_DIR", Path(__file__).resolve().parent.parent / "var")
    database = env.secret("DATABASE_URL", embedded.Layout(var).database_url)
    try:
        {"dump": dump, "restore": restore}[options.verb](options.folder, database, var / "files")
    except ServerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
