"""How long the server takes for the first byte of each page and of the API's answers, on the embedded default, after a ticket was
trained; and a bare Django view beside them: one after the other, then with many visitors at once (bench/visitors.py). Milliseconds.

make bench-pages        (ARGS="--times 60 --users 20 --seconds 60")

Ends with an error if the median of a page is above `MOST`.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import httpx

from bench import report, visitors
from bench.visitors import Asked
from contracts import devchain
from dmlsite.demo import PASSWORD, wait
from dmlsite.supervisor import Platform
from scripts.screenshots import ADMIN, CUSTOMER, trained

WARM = 5
MOST = 50
"""Milliseconds that a page's first byte may take, in the median."""
Found = dict[str, float]


def logged_in(url: str, email: str) -> httpx.Client:
    client = httpx.Client(base_url=url, follow_redirects=True, timeout=30)
    client.get("/accounts/login/")
    form = {"username": email, "password": PASSWORD, "csrfmiddlewaretoken": client.cookies["csrftoken"]}
    client.post("/accounts/login/", data=form).raise_for_status()
    return client


def measured(client: httpx.Client, path: str, times: int) -> Found:
    seconds = []
    for _ in range(WARM + times):
        began = time.perf_counter()
        with client.stream("GET", path) as answer:
            answer.raise_for_status()
            next(answer.iter_raw())
            seconds.append(time.perf_counter() - began)
    counted = [1000 * found for found in seconds[WARM:]]
    cuts = quantiles(counted, n=100)
    return {"median": round(median(counted), 1), "of 95 %": round(cuts[94], 1), "of 99 %": round(cuts[98], 1)}


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--times", type=int, default=200, help="that each is asked for")
    options.add_argument("--users", type=int, default=20, help="visitors, each of whom asks about once a second")
    options.add_argument("--seconds", type=int, default=60, help="that they come")
    wanted = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="dml-pages-") as folder:
        settings = {"DJANGO_SUPERUSER_PASSWORD": PASSWORD, "LOGIN_RATE": "1000/m"}
        platform = Platform(Path(folder), devchain.free_port(), devchain.free_port(), say=print, settings=settings)
        try:
            platform.start()
            ticket = trained(platform)
            asked = [*bare(platform), *pages(platform.url), programs(platform.url)]
            found = {
                f"{who}: {path}": measured(client, path.format(ticket=ticket), wanted.times)
                for who, client, paths in asked
                for path in paths
            }
            many = visitors.play(asked, ticket, Path(folder), wanted.users, wanted.seconds)
        finally:
            platform.stop()
    least = found[BARE]["median"]
    rows = [
        [page, *(f"{took:.1f} ms" for took in numbers.values()), f"{numbers['median'] / least:.1f}"]
        for page, numbers in found.items()
    ]
    report.show("First byte of each page", ["page", "median", "95 of 100", "99 of 100", "times bare"], rows)
    visitors.show(many)
    report.keep("pages", found | many)
    slow = [page for page, numbers in found.items() if numbers["median"] > MOST]
    if slow:
        print(f"Above {MOST} ms: {', '.join(slow)}")
    return 1 if slow else 0


BARE = "bare Django: /"


def bare(beside: Platform) -> list[Asked]:
    port = devchain.free_port()
    beside.spawn("bare", "-m", "bench.bare", str(port))
    client = httpx.Client(base_url=f"http://localhost:{port}", timeout=30)
    wait(lambda: answers(client), 60, "the bare view")
    return [("bare Django", client, ["/"])]


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/").is_success
    except httpx.TransportError:
        return False


def programs(url: str) -> Asked:
    """With a token, as programs do."""
    client = httpx.Client(base_url=url, timeout=30)
    said = client.post("/api/v1/login", json={"email": CUSTOMER, "password": PASSWORD}).raise_for_status()
    client.headers["Authorization"] = f"Token {said.json()['token']}"
    places = ["tickets", "tickets/{ticket}", "tickets/{ticket}/rounds", "tickets/{ticket}/artifacts", "terms"]
    return "API", client, [f"/api/v1/{place}" for place in places]


def pages(url: str) -> list[Asked]:
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
