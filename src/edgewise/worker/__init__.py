"""What stands on a device: takes packages, measures them in processes of their own, and answers one workshop at a time.

The process that waits imports neither numpy nor an engine; each job is a process of its own (`job.py`), which does.
"""
