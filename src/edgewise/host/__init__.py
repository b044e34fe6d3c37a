"""Models that stand ready on one device: residency under a memory cap, threads, and the queue that batches what shares a call.

`LocalHost` (in `hosting`) is the `Host` of this process; `Settings` what it may be told. They are imported where they are used.
"""

from edgewise.host.requests import Answer, Counted, Description, Host, Late, NoModel, Refused, Request, Statistics, Status, Taken

__all__ = ["Answer", "Counted", "Description", "Host", "Late", "NoModel", "Refused", "Request", "Statistics", "Status", "Taken"]
