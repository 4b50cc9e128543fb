"""A version whose predictions are recorded, with what is compiled of it once."""

from __future__ import annotations

from modelyard.recording.bins import Bins
from modelyard.recording.flags import Flags
from modelyard.recording.frames import Lane
from modelyard.recording.layouts import Form
from modelyard.registry.windows import bins_of


class Subject:
    """One version. Lanes of several processes that serve the same version have one subject."""

    def __init__(self, lane: Lane) -> None:
        self.model = lane.model
        self.version = lane.version
        self.digest = lane.digest
        self.signature = lane.signature
        self.reference = lane.reference
        layouts = lane.signature.input_layout, lane.signature.output_layout
        self.forms = Form.of(layouts[0]), Form.of(layouts[1])
        reference = lane.reference if lane.reference is not None and lane.reference.inputs else None
        sides = (reference.inputs, reference.outputs) if reference is not None else ([], [])
        self.bins = Bins(sides[0], layouts[0]), Bins(sides[1], layouts[1])
        self.flags = Flags(lane.signature, reference)
        #: Which bins windows are counted on; "" where there are none.
        self.bins_id = bins_of(reference) if reference is not None else ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is, among others."""
        return (self.model, self.version, self.digest)
