"""predict: a batch job over a file."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli import screen
from modelyard.cli.frame import Answer, command
from modelyard.cli.references import REFERENCE, trusted


@command(
    "predict",
    examples="""
    modelyard predict churn@production --input rows.csv --output out.parquet
    modelyard predict churn --input rows.parquet --output out.csv --keep customer_id
    modelyard predict churn:4 --input rows.csv --output out.jsonl --keep all --outputs prediction
    """,
)
@click.argument("ref", type=REFERENCE)
@click.option("--input", "input_", type=click.Path(path_type=Path), required=True, help="A CSV or Parquet file.")
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="What to write: .parquet, .csv or .jsonl."
)
@click.option(
    "--keep", default="", show_default=False, metavar="COLUMNS", help="Columns of the input to keep: all, or a,b,c."
)
@click.option(
    "--outputs", default=None, metavar="NAMES", help="Outputs of the model to write; all of them if not given."
)
@click.option("--encoding", default=None, help="The encoding of a CSV input, such as latin-1.  [utf-8]")
@click.option("--overwrite", is_flag=True, help="Replace the output, and work begun on it for another job.")
@trusted
def predict(
    ref: str, input_: Path, output: Path, keep: str, outputs: str | None, encoding: str | None, overwrite: bool,
    trust: tuple[str, ...],
) -> Answer:  # fmt: skip
    """Score a file of any size.

    Rows that do not fit are set aside in OUTPUT.rejected.csv with the reason. Killed at any moment, the same command
    goes on where it was; no row is written twice.
    """
    from modelyard import api

    try:
        with screen.progress(
            "scoring", unit="bytes" if input_.suffix.lower() not in (".parquet", ".pq") else ""
        ) as tell:
            scored = api.predict(
                ref,
                input_,
                output,
                keep="all" if keep == "all" else _words(keep),
                outputs=_words(outputs) if outputs is not None else None,
                encoding=encoding,
                overwrite=overwrite,
                trust=trust,
                progress=tell,
            )
    except KeyboardInterrupt:
        screen.note("the same command goes on where this one stopped")
        raise

    def show() -> None:
        if scored.resumed_at:
            screen.say(f"went on after row {scored.resumed_at:,}")
        rate = (scored.rows - scored.resumed_at) / max(scored.seconds, 1e-9)
        rows = screen.count(scored.scored, "row")
        screen.say(f"{rows} scored in {scored.seconds:.1f} s ({rate:,.0f} a second): {scored.output}")
        if scored.rejected:
            screen.say(f"{screen.count(scored.rejected, 'row')} set aside, with the reasons: {scored.rejected_file}")

    return Answer(scored, show)


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]
