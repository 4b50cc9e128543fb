"""watch: the process that turns what was recorded into findings, alerts and decisions; metrics: what it knows."""

from __future__ import annotations

import gc
import signal
import sys

import click

from modelyard.cli import screen
from modelyard.cli.frame import Answer, command
from modelyard.cli.options import of_settings


@command("watch", examples="modelyard watch\nmodelyard watch --once --json")
@click.option("--once", is_flag=True, help="Take in what there is, and stop; record nothing.")
@click.option("--beside", is_flag=True, help="End with standard input, once all is recorded.")
@of_settings("records")
def watch(once: bool, beside: bool, records: str | None) -> Answer | None:
    """Record what servers predict, and make findings, alerts and decisions of it.

    Any number of these may run, also on several machines that share a registry: on each machine one records, of all of
    them one decides, and another takes over within ten seconds of its end. Requests are served all the same where none
    runs. `modelyard serve` starts one beside itself where there is none.
    """
    from modelyard import api, settings
    from modelyard.companion import leave_with
    from modelyard.recording.batches import load_without_pandas
    from modelyard.recording.places import Places
    from modelyard.telemetry import Log
    from modelyard.watching import Watch

    places = None if once else Places.chosen(records)
    watching = Watch(api.open_registry(), places=places, log=Log(settings.get("log_level")))
    if once:
        acted = watching.once()
        return Answer({"acted": acted}, lambda: screen.say("done" if acted else "another process watches already"))
    load_without_pandas()
    if beside and places is not None:
        leave_with(sys.stdin.fileno(), places, watching.stop)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: watching.stop())
    # Its garbage is rows and few circles: looking for those as often as usual costs a tenth of the work.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    watching.run()
    return None


@command("metrics", examples="modelyard metrics\nmodelyard metrics > /var/lib/node_exporter/modelyard.prom")
def metrics() -> Answer:
    """Print what is watched as Prometheus' text.

    That is drift, quality, alerts, rollouts and the control loop. A server tells the same at its /metrics. This is for
    a timer where no server is scraped: node_exporter's textfile collector takes the file.
    """
    from modelyard import api

    text = api.metrics()
    return Answer({"metrics": text}, lambda: screen.say(text.removesuffix("\n")))
