"""What only the services of many machines can show: run by `make test-services` alone."""

from dmlsite.testing import SERVICES

collect_ignore_glob = [] if SERVICES else ["test_*.py"]
