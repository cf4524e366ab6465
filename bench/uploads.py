"""Many customers who upload together, and what a page takes meanwhile.

    make bench-uploads      (ARGS="--customers 50 --megabytes 20")

The whole platform in real processes, without jobs: what is uploaded is not cut. Each customer sends with dml-client, in parts.
"""

import argparse
import threading
import time
from pathlib import Path
from queue import Queue
from statistics import median, quantiles
from typing import Any

import httpx

from bench import ours, report
from bench.processes import Memory, children, family, processor_seconds
from dmlclient import DML
from dmlsite.supervisor import Platform


def file(on: Platform, megabytes: int) -> Path:
    """Rows of numbers."""
    line = ",".join(f"{number / 7:.6f}" for number in range(12)) + ",yes\n"
    path = on.layout.var / "rows.csv"
    path.write_text(line * (megabytes * 10**6 // len(line)))
    return path


def send(url: str, key: str, ticket: str, path: Path, took: "Queue[float | Exception]") -> None:
    began = time.perf_counter()
    try:
        with DML(url, key, progress=False) as client:
            client.upload(ticket, path)
        took.put(time.perf_counter() - began)
    except Exception as error:
        took.put(error)


def pages(on: Platform, over: threading.Event) -> dict[str, float]:
    """Milliseconds for the front page, asked five times a second until it is over."""
    times = []
    with httpx.Client(base_url=on.url, timeout=60) as client:
        while not over.wait(0.2):
            began = time.perf_counter()
            client.get("/").raise_for_status()
            times.append(1000 * (time.perf_counter() - began))
    return {
        "median": round(median(times), 1),
        "of 95 %": round(quantiles(times, n=20)[-1], 1),
        "most": round(max(times), 1),
    }


def together(on: Platform, customers: int, megabytes: int) -> dict[str, Any]:
    path, tickets = file(on, megabytes), ours.market(on, "paid", str(customers))
    web = ours.groups(on)["web"]
    used, over, took = processor_seconds(family(web, children())), threading.Event(), Queue[float | Exception]()
    senders = [threading.Thread(target=send, args=(on.url, *ticket, path, took)) for ticket in tickets]
    began = time.perf_counter()
    for sender in senders:
        sender.start()
    threading.Thread(target=lambda: ([sender.join() for sender in senders], over.set())).start()
    with Memory({"web": web}) as memory:
        latency = pages(on, over)
    seconds, times = time.perf_counter() - began, [took.get() for _ in tickets]
    sent = customers * path.stat().st_size / 1e6
    return {
        "failed": [str(error) for error in times if isinstance(error, Exception)],
        "seconds": round(seconds, 1),
        "megabytes_a_second": round(sent / seconds, 1),
        "slowest": round(max(each for each in times if isinstance(each, float)), 1),
        "web_memory": memory.most["web"],
        "web_processor_seconds_per_100_megabytes": round(
            100 * (processor_seconds(family(web, children())) - used) / sent, 2
        ),
        "page_milliseconds": latency,
    }


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--customers", type=int, nargs="+", default=[1, 50])
    options.add_argument("--megabytes", type=int, default=20)
    options.add_argument("--webs", type=int, default=1, help="web processes")
    wanted = options.parse_args()
    with ours.platform(4, processes={"web": wanted.webs, "jobs": 0, "compute": 0}) as on:
        for customers in wanted.customers:
            found = together(on, customers, wanted.megabytes)
            name = f"{customers} customers, {wanted.megabytes} MB each, {wanted.webs} web"
            print(name, *(f"{thing}: {value}" for thing, value in found.items()), sep="\n  ", flush=True)
            report.keep("uploads", {name: found})


if __name__ == "__main__":
    main()
