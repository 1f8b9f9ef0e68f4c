"""What a client knows and decides, whatever it runs on: no socket, no task, no clock of its own.

`course.py` is one subscription across its connections, `liveness.py` whether the daemon still speaks, `verdicts.py`
what an end or an answer means. The shells in `daemon/client/trio/` and `daemon/client/asyncio/` carry it out.
"""
