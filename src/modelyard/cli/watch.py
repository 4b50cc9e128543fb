"""watch: the process that turns what was recorded into findings, alerts and decisions."""

from __future__ import annotations

import signal

import click

from modelyard.cli import screen
from modelyard.cli.frame import Answer, command
from modelyard.cli.options import of_settings


@command("watch", examples="modelyard watch\nmodelyard watch --once --json")
@click.option("--once", is_flag=True, help="Take in what there is, and stop; record nothing.")
@of_settings("records")
def watch(once: bool, records: str | None) -> Answer | None:
    """Record what servers predict, and make findings, alerts and decisions of it.

    Any number of these may run, also on several machines that share a registry: on each machine one records, of all of
    them one decides, and another takes over within ten seconds of its end. Requests are served all the same where none
    runs.
    """
    from modelyard import api, settings
    from modelyard.recording.places import Places
    from modelyard.telemetry import Log
    from modelyard.watching import Watch

    places = None if once else Places.chosen(records)
    watching = Watch(api.open_registry(), places=places, log=Log(settings.get("log_level")))
    if once:
        acted = watching.once()
        return Answer({"acted": acted}, lambda: screen.say("done" if acted else "another process watches already"))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: watching.stop())
    watching.run()
    return None
