"""Serving: loaded versions behind wires, one model call for all requests of one turn of the loop."""
