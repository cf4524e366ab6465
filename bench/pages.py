"""How long the server takes for the first byte of each page, on the embedded default, after a ticket was trained. Milliseconds.

make bench-pages

Ends with an error if the median of a page is above `MOST`.
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import httpx

from bench import report
from contracts import devchain
from dmlsite.demo import PASSWORD
from dmlsite.supervisor import Platform
from scripts.screenshots import ADMIN, CUSTOMER, trained

TIMES, WARM = 60, 5
MOST = 50
"""Milliseconds that a page's first byte may take, in the median."""
Found = dict[str, float]


def logged_in(url: str, email: str) -> httpx.Client:
    client = httpx.Client(base_url=url, follow_redirects=True, timeout=30)
    client.get("/accounts/login/")
    form = {"username": email, "password": PASSWORD, "csrfmiddlewaretoken": client.cookies["csrftoken"]}
    client.post("/accounts/login/", data=form).raise_for_status()
    return client


def measured(client: httpx.Client, path: str) -> Found:
    seconds = []
    for _ in range(WARM + TIMES):
        began = time.perf_counter()
        with client.stream("GET", path) as answer:
            answer.raise_for_status()
            next(answer.iter_raw())
            seconds.append(time.perf_counter() - began)
    counted = [1000 * found for found in seconds[WARM:]]
    return {"median": round(median(counted), 1), "of 95 %": round(quantiles(counted, n=20)[-1], 1)}


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="dml-pages-") as folder:
        settings = {"DJANGO_SUPERUSER_PASSWORD": PASSWORD, "LOGIN_RATE": "1000/m"}
        platform = Platform(Path(folder), devchain.free_port(), devchain.free_port(), say=print, settings=settings)
        try:
            platform.start()
            ticket = trained(platform)
            found = {
                f"{who}: {path}": measured(client, path.format(ticket=ticket))
                for who, client, paths in pages(platform.url)
                for path in paths
            }
        finally:
            platform.stop()
    rows = [[page, f"{times['median']:.1f} ms", f"{times['of 95 %']:.1f} ms"] for page, times in found.items()]
    report.show("First byte of each page", ["page", "median", "95 of 100"], rows)
    report.keep("pages", found)
    slow = [page for page, times in found.items() if times["median"] > MOST]
    if slow:
        print(f"Above {MOST} ms: {', '.join(slow)}")
    return 1 if slow else 0


def pages(url: str) -> list[tuple[str, httpx.Client, list[str]]]:
    anybody = httpx.Client(base_url=url, timeout=30)
    return [
        ("anybody", anybody, ["/", "/accounts/login/", "/accounts/register/", "/providers/ada/"]),
        (
            "customer",
            logged_in(url, CUSTOMER),
            ["/tickets/", "/tickets/order/", "/tickets/{ticket}/", "/tickets/{ticket}/progress/", "/accounts/"],
        ),
        ("provider", logged_in(url, "ada@dml.example"), ["/provider/", "/provider/work/{ticket}/"]),
        (
            "admin",
            logged_in(url, ADMIN),
            ["/admin/", "/admin/tickets/ticket/", "/admin/tickets/ticket/{ticket}/change/"],
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
