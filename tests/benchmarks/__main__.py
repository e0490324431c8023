"""Compare the cost of a request with a hand-written WSGI function and other frameworks.

    pip install -e ".[benchmark]"  and  apt-get install wrk
    python -m tests.benchmarks [--short] [--only ROW] [--output DIR] [--postgres URL]

writes benchmark.md and benchmark.svg to build/ or DIR, in about 15 minutes. `--short` only checks
that it runs, in one process on SQLite, in 20 seconds. `--only "one query"` measures only the rows
whose title starts like this, and writes nothing.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from . import measure, report, work
from .apps import make
from .measure import COMPONENTS, JOBS, PLAIN, Client, Job, Times, median, race, ratio

PEERS = ("floor", "noventa", "bottle", "falcon", "flask", "pyramid", "django", "django_orm")
SLOW_ROUTERS = ("bottle", "falcon", "django_orm")  # they need minutes to create 10,000 routes
Results = dict[str, list[Times]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables and write them."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--short", action="store_true", help="20 s, in one process, on SQLite")
    parser.add_argument("--only", metavar="ROW", help="only rows whose title starts with ROW")
    parser.add_argument("--output", type=Path, default=Path("build"), help="folder for both files")
    parser.add_argument("--postgres", default="postgresql+psycopg://postgres@127.0.0.1/postgres")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder, _scratch(options.postgres) as postgres:
        sqlite = f"sqlite:///{folder}/benchmark.db"
        work.fill(sqlite)
        if options.only:
            print(report.markdown(_selected(options.only, sqlite, postgres, options.short)))
            return
        tables, chart = measure_all(sqlite, None if options.short else postgres, options.short)
    text = report.markdown(tables)
    print(text)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "benchmark.md").write_text(text, "utf-8")
    (options.output / "benchmark.svg").write_text(chart, "utf-8")


def measure_all(sqlite: str, postgres: str | None, short: bool) -> tuple[list[report.Table], str]:
    """Return the tables and the chart."""
    rounds, seconds = _rounds(short)
    on_sqlite = {job: _race(job, sqlite, rounds, seconds) for job in _jobs(short)}
    parts = {job: _race(job, sqlite, rounds, seconds) for job in COMPONENTS}
    floor = median(on_sqlite[PLAIN]["floor"]).cpu
    tables = [_ratios(on_sqlite), _routes(on_sqlite), _components(parts, floor)]
    if postgres:
        jobs = [job for job in JOBS if job.database]
        on_postgres = {job: _race(job, postgres, rounds, seconds) for job in jobs}
        tables.insert(1, _on_postgres(on_postgres))
    if not short:
        tables += [_start_up(sqlite), _memory(sqlite)]
        tables += [_gunicorn(url) for url in (sqlite, postgres) if url]
    names = PEERS[1:]
    bars = {
        job.title: {name: ratio(results[name], results["floor"]).cpu for name in names}
        for job, results in on_sqlite.items()
        if not job.extra
    }
    return tables, report.chart("CPU time of a request (hand-written WSGI = 1)", names, bars)


def _selected(title: str, sqlite: str, postgres: str | None, short: bool) -> list[report.Table]:
    """Return the ratios of selected rows only."""
    jobs = [job for job in JOBS if job.title.startswith(title) and not job.extra]
    if not jobs:
        titles = ", ".join(repr(job.title) for job in JOBS if not job.extra)
        raise SystemExit(f"no row starts with {title!r}; choose from {titles}")
    tables = [_ratios({job: _race(job, sqlite, *_rounds(short)) for job in jobs})]
    jobs = [job for job in jobs if job.database]
    if postgres and jobs:
        tables.append(_on_postgres({job: _race(job, postgres, *_rounds(short)) for job in jobs}))
    return tables


def _rounds(short: bool) -> tuple[int, float]:
    """Return the number of rounds, and the seconds per application in each."""
    return (3, 0.005) if short else (21, 0.02)


def _jobs(short: bool) -> list[Job]:
    return [job for job in JOBS if not short or job.extra < 10_000]


def _race(job: Job, url: str, rounds: int, seconds: float) -> Results:
    names = ("inline", "noventa", "include", "jinjax") if job in COMPONENTS else PEERS
    if job.extra == 10_000:
        names = tuple(name for name in names if name not in SLOW_ROUTERS)
    clients = {name: Client(name, make(name, url, job.extra), job) for name in names}
    return race(clients, rounds, seconds)


def _ratios(results: Mapping[Job, Results]) -> report.Table:
    rows = [(job.title, _cells(times, "cpu")) for job, times in results.items() if not job.extra]
    note = "CPU time of a request: microseconds for the floor, multiples of it for the others."
    return report.Table("In one process, SQLite", note, PEERS, rows)


def _on_postgres(results: Mapping[Job, Results]) -> report.Table:
    rows = [
        (f"{job.title}, {kind}", _cells(times, field))
        for job, times in results.items()
        for kind, field in (("CPU", "cpu"), ("wall", "wall"))
    ]
    note = "As above, and wall time, which includes the database and the connection to it."
    return report.Table("In one process, PostgreSQL", note, PEERS, rows)


def _cells(times: Results, field: str) -> dict[str, str]:
    floor = times["floor"]
    cells = {name: f"{getattr(ratio(times[name], floor), field):.2f}" for name in times}
    return {**cells, "floor": f"{getattr(median(floor), field) * 1e6:.1f} µs"}


def _routes(results: Mapping[Job, Results]) -> report.Table:
    rows = [
        (job.title, {name: f"{median(times[name]).cpu * 1e6:.1f}" for name in times})
        for job, times in results.items()
        if job.extra
    ]
    note = "CPU microseconds of the middle route. Bottle and Falcon need minutes for 10,000."
    return report.Table("Routes", note, PEERS[:-1], rows)


def _components(results: Mapping[Job, Results], plain: float) -> report.Table:
    rows = []
    for job, times in results.items():
        inlined = median(times["inline"]).cpu
        cells = {"inline": f"{inlined * 1e6:.1f} µs for the page"}
        for name in ("noventa", "include", "jinjax"):
            each = (median(times[name]).cpu - inlined) / COMPONENTS[job]
            cells[name] = f"{each * 1e6:.1f} µs ({each / plain:.2f})"
        rows.append((job.title, cells))
    note = (
        "Cost of a component over inlined HTML; in brackets, as a share of the floor's plain page."
    )
    return report.Table("Components", note, ("inline", "noventa", "include", "jinjax"), rows)


def _start_up(url: str) -> report.Table:
    durations = measure.start_up(PEERS, url, runs=7)
    cells = {name: f"{seconds * 1000:.0f}" for name, seconds in durations.items()}
    note = "CPU milliseconds of a new process until its first response."
    names = ("libraries", *PEERS)
    return report.Table("Start-up", note, names, [("milliseconds", cells)])


def _memory(url: str) -> report.Table:
    sizes = {name: measure.memory(name, url, 100_000) for name in PEERS}
    end = {name: f"{size:.1f}" for name, (_, size) in sizes.items()}
    growth = {name: f"{size - before:+.1f}" for name, (before, size) in sizes.items()}
    note = "Megabytes of the process, with eight kinds of request in turn."
    rows = [("after 100,000 requests", end), ("since the first 10,000", growth)]
    return report.Table("Memory", note, PEERS, rows)


def _gunicorn(url: str) -> report.Table:
    jobs = [PLAIN, *(job for job in JOBS if job.database and job.method == "GET")]
    speeds = measure.under_gunicorn(PEERS, url, jobs, rounds=2, seconds=2)
    rows = [(title, {n: f"{s:,.0f}" for n, s in row.items()}) for title, row in speeds.items()]
    backend = "PostgreSQL" if url.startswith("postgresql") else "SQLite"
    note = "Requests per second: one worker with four threads, eight connections of wrk."
    return report.Table(f"Under gunicorn, {backend}", note, PEERS, rows)


@contextmanager
def _scratch(url: str) -> Iterator[str | None]:
    """Yield the URL of a new PostgreSQL database, or None without a server; drop it at the end."""
    name = f"noventa_benchmark_{os.getpid()}"
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
    except sa.exc.OperationalError as error:
        print(f"Without PostgreSQL: {str(error.orig).splitlines()[0]}")
        yield None
        return
    try:
        scratch = engine.url.set(database=name).render_as_string(hide_password=False)
        work.fill(scratch)
        yield scratch
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


if __name__ == "__main__":
    main()
