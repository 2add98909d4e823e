"""The HTTP application of an appliance in this process, with a supervisor that does each job of the worker at once."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path

from helpers.appliance import FakeClock
from helpers.http_calls import FORM, TCP, call
from spinescore.runtime.appliance.configuration.config import Config, Score, SpoolPart
from spinescore.runtime.appliance.configuration.endpoints import Http
from spinescore.runtime.appliance.store.places import make_places
from spinescore.runtime.appliance.web.access import Access, Client, read_access
from spinescore.runtime.appliance.web.app import make_app
from spinescore.runtime.appliance.web.consoles import Consoles
from spinescore.runtime.appliance.web.site import Site
from spinescore.runtime.appliance.work.reviewjob import JOBS
from spinescore.runtime.appliance.work.workerprocess import do_console
from spinescore.runtime.documents import read

CLIENTS = {f"{role}-token": Client(role) for role in ("console", "reader", "admin")}


class Supervisor:
    """Does each job at once, or answers with `fault`, or holds it until it is cancelled."""

    def __init__(self, score, consoles) -> None:
        self.score, self.consoles = score, consoles
        self.said, self.fault, self.holds = [], None, False

    def say(self, **message) -> None:
        message = json.loads(json.dumps(message))
        self.said.append(message)
        if "cancel" in message:
            self.consoles.hear({"console": message["cancel"], "code": "cancelled", "message": "given up"})
        for name in () if self.holds else JOBS.keys() & message.keys():
            job, answers = read(JOBS[name], message[name]), []
            if self.fault is None:
                do_console(job, self.score, lambda **one: answers.append(one), threading.Event())  # noqa: B023  # at once
            code, text = self.fault or (answers[-1]["code"], answers[-1]["message"])
            self.consoles.hear({"console": job.key, "code": code, "message": text})

    def jobs(self) -> list[str]:
        """The kinds of the jobs that it got."""
        return [name for message in self.said for name in JOBS.keys() & message.keys()]


def request(**options) -> tuple[str, str, bytes]:
    """The part of a call to score that has its options."""
    return "request", "application/json", json.dumps(options).encode()


def plain(report: dict) -> dict:
    """A report without its times, and without the names of its files."""
    report = {name: value for name, value in report.items() if name != "timings_ms"}
    return json.loads(json.dumps(report).replace("image-1.dcm", "cervical.dcm").replace("image-2.dcm", "lumbar.dcm"))


@dataclass
class Alone:
    """The application of a service for consoles alone."""

    app: object
    supervisor: Supervisor
    places: object
    clock: FakeClock

    def score(self, body, kind=FORM, query="", **more):
        return call(self.app, "POST", f"/v1/score{query}", body, kind, **more)

    def left(self) -> list[Path]:
        return list(self.places.incoming.iterdir())


def serve_alone(folder, bundle, score, **http) -> Alone:
    """Open the application on a spool in a folder."""
    config = Config(SpoolPart(str(folder / "spool"), 0.001), Score(str(bundle)), http=Http(**http))
    places, clock, consoles = make_places(folder / "spool", 1 << 20), FakeClock(), Consoles()
    supervisor = Supervisor(score, consoles)
    consoles.open(places, clock, supervisor.say)
    app = make_app(Site(config, places, clock, read_access(config.http), consoles))
    return Alone(app, supervisor, places, clock)


@dataclass
class Served:
    appliance: object
    app: object
    supervisor: Supervisor

    def ask(self, method, path, body=b"", kind="", **more):
        answer = call(self.app, method, path, body, kind, **more)
        assert not list(self.appliance.places.incoming.glob("*.console"))
        return answer

    def get(self, path):
        return self.ask("GET", path).json()

    def report(self, number=1):
        """The report of a study's newest revision."""
        return self.get(self.get(f"/v1/studies/{number}")["report_url"])

    def post(self, path, document, *, token=None, **more):
        """Post a document, over TCP if a token is given."""
        more |= {} if token is None else {"server": TCP, "headers": [("authorization", f"Bearer {token}")]}
        return self.ask("POST", path, json.dumps(document).encode(), "application/json", **more)


def corner(report, site):
    """The corner at a site in the document of a report."""
    corners = (one for region in report["regions"].values() for disc in region["discs"] for one in disc["corners"])
    return next(one for one in corners if one["site"] == site)


def moved(report, by=1.0):
    """Points of the report's first cervical disc, some pixels lower."""
    disc = report["regions"]["cervical"]["discs"][0]
    return {"cervical": {"C2/C3": [[x, y + by] for x, y in (disc["centre_px"], disc["anterior_px"])]}}


def serve(appliance, score, clients=CLIENTS) -> Served:
    consoles = Consoles()
    supervisor = Supervisor(score, consoles)
    consoles.open(appliance.places, appliance.clock, supervisor.say)
    site = Site(appliance.config, appliance.places, appliance.clock, Access(clients), consoles)
    return Served(appliance, make_app(site), supervisor)
