"""The HTTP application of an appliance in this process, with a supervisor that does each job of the worker at once."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass

from helpers.http_calls import TCP, call
from spinescore.runtime.appliance.web.access import Access, Client
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

    def post(self, path, document, *, token=None, **more):
        """Post a document, over TCP if a token is given."""
        more |= {} if token is None else {"server": TCP, "headers": [("authorization", f"Bearer {token}")]}
        return self.ask("POST", path, json.dumps(document).encode(), "application/json", **more)


def serve(appliance, score, clients=CLIENTS) -> Served:
    consoles = Consoles()
    supervisor = Supervisor(score, consoles)
    consoles.open(appliance.places, appliance.clock, supervisor.say)
    site = Site(appliance.config, appliance.places, appliance.clock, Access(clients), consoles)
    return Served(appliance, make_app(site), supervisor)
