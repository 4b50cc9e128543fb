"""The web console: every operation of ``modelyard.admin`` for people, in a browser. It needs the extra ``console``."""
