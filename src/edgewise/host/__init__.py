"""Models that stand ready on one device: residency under a memory cap, threads, and the queue that batches what shares a call."""

from edgewise.host.requests import Answer, Counted, Description, Host, Late, NoModel, Refused, Request, Statistics, Status

__all__ = ["Answer", "Counted", "Description", "Host", "Late", "NoModel", "Refused", "Request", "Statistics", "Status"]
