from training.tests.conftest import files, run, started

__all__ = ["files", "run", "started"]
