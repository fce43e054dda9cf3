"""PostgreSQL's advisory locks that have a number: all of them, so that no two share one.

Those of a session and those of a transaction are of one space. Locks of two numbers are of another,
but each of these is the first of them nowhere else either.
"""

from __future__ import annotations

from enum import IntEnum, unique


@unique
class Lock(IntEnum):
    IMPORT = 7_405_001  # one import at a time writes; of a transaction
    ENCODE = 7_405_002  # one process at a time encodes; of a session
    FIT = 7_405_003  # one process at a time fits the ranking; of a session
    HARVEST = 7_405_004  # with a source: who looks whether it is being pulled; of a transaction
    COUNT_WORDS = 7_405_005  # one process at a time counts; of a transaction
    SEND = 7_405_006  # with a number below SEND_PROCESSES: who sends; of a session
    VOTE = 7_405_010  # with a paper's id: one vote at a time is counted; of a transaction
